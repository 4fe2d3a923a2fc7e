"""`report.json`: what was asked for, what came out, and how each figure was measured."""

from __future__ import annotations

from typing import Any

import torch

from cstar_core.pipeline.environment import environment
from cstar_core.pipeline.methods import TRAINING
from cstar_core.pipeline.state import State
from cstar_core.pipeline.workbench import Workbench

FORMAT = "cstar-report"
VERSION = 1


def report(workbench: Workbench, state: State) -> dict[str, Any]:
    """Return the whole report as JSON data; `result` is what the job's document shows."""
    task = workbench.task
    return {
        "format": FORMAT,
        "version": VERSION,
        **task.facts,
        "method": {"name": task.method, "note": workbench.method.note},
        "result": result(workbench, state),
        "notes": _notes(workbench, state),
        "threat_model": {
            "norm": task.threat.norm,
            "epsilon": task.threat.epsilon,
            "pixel_range": [0, 1],
            "attacker": "white-box, untargeted goal",
        },
        "evaluation": state.findings["evaluating"],
        "plan": state.plan,
        "phases": {name: state.findings[name] for name in _until_trained(workbench)},
        "epochs": {
            name: state.findings.get(f"{name}_epochs", [])
            for name in _until_trained(workbench)
            if name in TRAINING
        },
        "execution": {
            name: state.findings[f"{name}_execution"]
            for name in _until_trained(workbench)
            if f"{name}_execution" in state.findings
        },
        "before_fine_tuning": _before_fine_tuning(workbench, state),
        "verification": state.findings["exporting"]["verified"],
        "latency": state.findings["exporting"]["latency"],
        "latency_on_device": state.findings["exporting"]["latency_on_device"],
        "profile": workbench.profile.to_json(),
        "seed": task.seed,
        "split_sha256": workbench.data.sha256,
        "environment": environment(torch.get_num_threads()),
    }


def _until_trained(workbench: Workbench) -> tuple[str, ...]:
    """Return the phases up to the last one that trains; what follows has parts of its own."""
    phases, last = workbench.method.phases, workbench.method.last_training
    return phases[: phases.index(last) + 1]


def _before_fine_tuning(workbench: Workbench, state: State) -> dict[str, float | int | str]:
    """Return how good the small network was on held-out images before it was trained as such."""
    phase = workbench.method.compressed_by
    found = state.findings[phase]
    return {
        "phase": phase,
        "held_out_clean_accuracy": found["held_out_clean_accuracy"],
        "held_out_robust_accuracy": found["held_out_robust_accuracy"],
        "held_out_examples": len(workbench.held_out),
    }


def result(workbench: Workbench, state: State) -> dict[str, Any]:
    """Return targets with their outcomes, and the figures before and after."""
    plan = workbench.plan(state)
    return {
        "targets": targets(workbench, state),
        "before": _figures(state, "before", parameters=plan.dense_parameters, macs=plan.dense_macs),
        "after": _figures(state, "after", parameters=plan.parameters, macs=plan.macs),
        "ratio": plan.ratio,
        "macs_ratio": plan.macs_ratio,
        "convolution_ratio": plan.convolution_ratio,
    }


def targets(workbench: Workbench, state: State) -> list[dict[str, Any]]:
    """Return each target with requested, achieved, interval and outcome.

    An accuracy is met when the lower end of its 95 % interval meets it (evaluation.md, rule 5).
    """
    task, plan = workbench.task, workbench.plan(state)
    after = state.findings["evaluating"]["after"]
    sizes = [
        ("ratio", task.limits.ratio, plan.ratio, _at_least),
        ("max_params", task.limits.max_params, plan.parameters, _at_most),
        ("max_macs", task.limits.max_macs, plan.macs, _at_most),
        ("max_bytes", task.limits.max_bytes, _stored_bytes(state), _at_most),
        ("max_latency_ms", task.limits.max_latency_ms, _latency_ms(state), _at_most),
    ]
    accuracies = [
        ("robust_accuracy", task.min_robust_accuracy, after["autoattack"]),
        ("clean_accuracy", task.min_clean_accuracy, after["clean"]),
    ]
    rows = [
        _row(metric, requested, achieved, None, met(achieved, requested))
        for metric, requested, achieved, met in sizes
        if requested is not None
    ]
    return rows + [
        _row(metric, requested, a["value"], a["interval"], a["interval"][0] >= requested)
        for metric, requested, a in accuracies
        if requested is not None
    ]


def _stored_bytes(state: State) -> int:
    """Return the bytes of all tensors of the compressed network."""
    return sum(tensor.nbytes for tensor in state.factorised.values())


def _latency_ms(state: State) -> float:
    """Return the measured time of one image on the device the job ran on."""
    exported = state.findings["exporting"]
    measured = exported["latency_on_device"] or exported["latency"]
    return float(measured["after"]["batch 1"]["median_ms"])


def _row(
    metric: str, requested: float, achieved: float, interval: list[float] | None, met: bool
) -> dict[str, Any]:
    return {
        "metric": metric,
        "requested": requested,
        "achieved": achieved,
        "interval": interval,
        "outcome": "met" if met else "missed",
    }


def _at_least(achieved: float, requested: float) -> bool:
    return achieved >= requested


def _at_most(achieved: float, requested: float) -> bool:
    return achieved <= requested


def _figures(state: State, when: str, *, parameters: int, macs: int) -> dict[str, Any]:
    evaluated, exported = state.findings["evaluating"][when], state.findings["exporting"]
    robust = {_short_name(key, evaluated[key]): evaluated[key] for key in ("pgd", "autoattack")}
    return {
        "parameters": parameters,
        "macs": macs,
        "bytes": exported["bytes"][when],
        "latency_ms": exported["latency"][when],
        "clean_accuracy": _plain(evaluated["clean"]),
        "robust_accuracy": {name: _plain(figure) for name, figure in robust.items()},
    }


def _short_name(key: str, figure: dict[str, Any]) -> str:
    """AutoAttack standard is called by its short name; anything else for what it is."""
    return "autoattack" if figure["name"] == "autoattack-standard" else str(figure["name"] or key)


def _plain(figure: dict[str, Any]) -> dict[str, Any]:
    return {name: figure[name] for name in ("value", "n", "interval", "label") if name in figure}


def _notes(workbench: Workbench, state: State) -> list[str]:
    task = workbench.task
    notes = list(state.findings.get("admm", {}).get("notes", []))
    for when in ("before", "after"):
        for flag in state.findings["evaluating"][when]["flags"]:
            notes.append(f"robustness figures {when}: {flag['code']} ({flag['detail']})")
    for name in workbench.method.phases:
        execution = state.findings.get(f"{name}_execution", {"notes": []})
        notes += [f"phase {name}: {note}" for note in execution["notes"]]
    if task.profile.name == "quick":
        notes.append(f"profile quick: {task.profile.note}")
    return notes
