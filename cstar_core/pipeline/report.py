"""`report.json` of a compression: what was asked for, what came out, how it was measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cstar_core.evaluation.report import Footprint, common_sections
from cstar_core.evaluation.targets import Target, accuracy_target, at_least, at_most
from cstar_core.pipeline.methods import TRAINING
from cstar_core.pipeline.state import State
from cstar_core.pipeline.workbench import Workbench


def report(workbench: Workbench, state: State) -> dict[str, Any]:
    """Return the whole report as JSON data."""
    task, plan = workbench.task, workbench.plan(state)
    exported = state.findings["exporting"]
    content = common_sections(
        "compression",
        evaluation=state.findings["evaluating"],
        settings=workbench.evaluation,
        targets=targets(workbench, state),
        footprints=_footprints(workbench, state),
        latency=exported["latency"],
        split_sha256=workbench.data.sha256,
        size=f"{plan.ratio:.1f}x smaller.",
    )
    content["result"] |= {
        "ratio": plan.ratio,
        "macs_ratio": plan.macs_ratio,
        "convolution_ratio": plan.convolution_ratio,
    }
    return content | {
        **task.facts,
        "method": {"name": task.method, "note": workbench.method.note},
        "notes": _notes(workbench, state),
        "plan": state.plan,
        **_training(workbench, state),
        "before_fine_tuning": _before_fine_tuning(workbench, state),
        "verification": exported["verified"],
        "profile": workbench.profile.to_json(),
    }


def result(workbench: Workbench, state: State) -> dict[str, Any]:
    """Return targets with outcomes, the verdict in brief, and the figures of both networks."""
    shown: dict[str, Any] = report(workbench, state)["result"]
    return shown


def targets(workbench: Workbench, state: State) -> list[Target]:
    """Return every target of the task beside what was achieved."""
    return [*_size_targets(workbench, state), *_accuracy_targets(workbench, state)]


def _size_targets(workbench: Workbench, state: State) -> Iterator[Target]:
    limits, plan = workbench.task.limits, workbench.plan(state)
    if limits.ratio is not None:
        yield at_least("ratio", limits.ratio, plan.ratio)
    if limits.max_params is not None:
        yield at_most("max_params", limits.max_params, plan.parameters)
    if limits.max_macs is not None:
        yield at_most("max_macs", limits.max_macs, plan.macs)
    if limits.max_bytes is not None:
        yield at_most("max_bytes", limits.max_bytes, state.findings["exporting"]["bytes"]["after"])
    if limits.max_latency_ms is not None:
        yield at_most("max_latency_ms", limits.max_latency_ms, _latency_ms(state))


def _accuracy_targets(workbench: Workbench, state: State) -> Iterator[Target]:
    task, after = workbench.task, state.findings["evaluating"]["after"]
    if task.min_robust_accuracy is not None:
        yield accuracy_target("robust_accuracy", task.min_robust_accuracy, after["worst_case"])
    if task.min_clean_accuracy is not None:
        yield accuracy_target("clean_accuracy", task.min_clean_accuracy, after["clean"])


def _footprints(workbench: Workbench, state: State) -> dict[str, Footprint]:
    plan, stored = workbench.plan(state), state.findings["exporting"]["bytes"]
    return {
        "before": Footprint(plan.dense_parameters, plan.dense_macs, stored["before"]),
        "after": Footprint(plan.parameters, plan.macs, stored["after"]),
    }


def _latency_ms(state: State) -> float:
    """Return the measured time of one image in eager PyTorch on the device the job ran on."""
    latency = state.findings["exporting"]["latency"]
    measured = latency["on_device"] or latency["runtimes"]["torch"]
    return float(measured["after"]["batch 1"]["median_ms"])


def _training(workbench: Workbench, state: State) -> dict[str, Any]:
    """Return what every phase up to the last that trains has found, its epochs and how it ran."""
    phases, last = workbench.method.phases, workbench.method.last_training
    names = phases[: phases.index(last) + 1]
    return {
        "phases": {name: state.findings[name] for name in names},
        "epochs": {
            name: state.findings.get(f"{name}_epochs", []) for name in names if name in TRAINING
        },
        "execution": {
            name: state.findings[f"{name}_execution"]
            for name in names
            if f"{name}_execution" in state.findings
        },
    }


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


def _notes(workbench: Workbench, state: State) -> list[str]:
    profile = workbench.task.profile
    notes = list(state.findings.get("admm", {}).get("notes", []))
    for name in workbench.method.phases:
        execution = state.findings.get(f"{name}_execution", {"notes": []})
        notes += [f"phase {name}: {note}" for note in execution["notes"]]
    if profile.name == "quick":
        notes.append(f"profile quick: {profile.note}")
    return notes
