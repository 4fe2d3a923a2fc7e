"""What to say of the events and metrics of a job, a line each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cstar_client.documents import Event

Data = Mapping[str, Any]


def line(event: Event) -> str:
    """Return what to say of an event; an unknown type is not spoken of."""
    say = _LINES.get(event["type"])
    return say(event["data"]) if say is not None else ""


def epoch_line(step: int, metrics: Mapping[str, float]) -> str:
    """Return what to say of an epoch's end."""
    figures = [f"{name} {metrics[key]:.3f}" for key, name in EPOCH_FIGURES if key in metrics]
    return f"    epoch {step}: {', '.join(figures)}"


EPOCH_FIGURES = (
    ("held_out_clean_accuracy", "clean"),
    ("held_out_robust_accuracy", "robust"),
    ("admm_gap", "gap"),
    ("loss", "loss"),
)


def _queued(data: Data) -> str:
    reason = data.get("reason")
    return f"  queued again: {reason}" if reason else ""


def _candidates(data: Data) -> str:
    plans = [
        f"{plan['name']} {plan['held_out_robust_accuracy']:.3f}" for plan in data["candidates"]
    ]
    return f"    robust after projection: {', '.join(plans)}; kept {data['chosen']}"


def _evaluation(data: Data) -> str:
    low, high = data["interval"]
    interval = f"[{low:.3f}, {high:.3f}], n = {data['n']}"
    return f"    {data['model']}, {data['attack']}: {data['value']:.3f} {interval}"


_LINES: dict[str, Callable[[Data], str]] = {
    "job.queued": _queued,
    "job.paused": lambda _: "  paused",
    "job.cancelling": lambda _: "  cancelling",
    "phase.started": lambda data: f"  {data['phase']}",
    "phase.skipped": lambda data: f"    skipped: {data['reason']}",
    "model.checked": lambda data: (
        f"    held-out: clean {data['held_out_clean_accuracy']:.3f}, "
        f"robust {data['held_out_robust_accuracy']:.3f}"
    ),
    "ranks.planned": _candidates,
    "admm.finished": lambda data: f"    mean gap |W - Z| / |W| {data['mean_gap']:.3f}",
    "network.factorised": lambda data: (
        f"    robust after factorising {data['held_out_robust_accuracy']:.3f}"
    ),
    "evaluation.finished": _evaluation,
}
