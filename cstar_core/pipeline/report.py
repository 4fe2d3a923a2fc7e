"""`report.json`: what was asked for, what came out, and how each figure was measured."""

from __future__ import annotations

from typing import Any

import torch

from cstar_core.pipeline.environment import environment
from cstar_core.pipeline.state import State
from cstar_core.pipeline.workbench import Workbench
from cstar_core.ranks import RankPlan

FORMAT = "cstar-report"
VERSION = 1


def report(workbench: Workbench, state: State) -> dict[str, Any]:
    """Return the whole report as JSON data; `result` is what the job's document shows."""
    task = workbench.task
    return {
        "format": FORMAT,
        "version": VERSION,
        **task.facts,
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
        "phases": {
            name: state.findings[name]
            for name in ("checking", "dense_training", "planning", "admm", "factorising")
        }
        | {"fine_tuning": state.findings["fine_tuning"]},
        "epochs": {
            name: state.findings.get(f"{name}_epochs", [])
            for name in ("dense_training", "admm", "fine_tuning")
        },
        "verification": state.findings["exporting"]["verified"],
        "latency": state.findings["exporting"]["latency"],
        "profile": task.profile.to_json(),
        "seed": task.seed,
        "split_sha256": workbench.data.sha256,
        "environment": environment(torch.get_num_threads()),
    }


def result(workbench: Workbench, state: State) -> dict[str, Any]:
    """Return targets with their outcomes, and the figures before and after."""
    plan = RankPlan.from_dict(state.plan)
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
    task, plan = workbench.task, RankPlan.from_dict(state.plan)
    after = state.findings["evaluating"]["after"]
    sizes = [
        ("ratio", task.limits.ratio, plan.ratio, _at_least),
        ("max_params", task.limits.max_params, plan.parameters, _at_most),
        ("max_macs", task.limits.max_macs, plan.macs, _at_most),
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
    notes = list(state.findings["admm"]["notes"])
    for when in ("before", "after"):
        for flag in state.findings["evaluating"][when]["flags"]:
            notes.append(f"robustness figures {when}: {flag['code']} ({flag['detail']})")
    if task.profile.name == "quick":
        notes.append(f"profile quick: {task.profile.note}")
    return notes
