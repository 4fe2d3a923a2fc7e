"""Showing a job's progress: a live bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cstar_client import Client

WAIT_S = 1


def follow(client: Client, job: dict[str, Any], console: Console) -> dict[str, Any]:
    """Print what happens to a job until it is over, and return its last document."""
    columns = (
        TextColumn("{task.description:>14}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    seen = 0
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("queued", total=1.0)
        while True:
            job = client.get("jobs", job["id"], wait_s=WAIT_S)
            bar.update(task, completed=job["progress"], description=job["phase"] or job["status"])
            seen = _print_news(client, job, console, seen)
            if job["finished_at"] is not None:
                return job


def _print_news(client: Client, job: dict[str, Any], console: Console, seen: int) -> int:
    events = client.listing(f"jobs/{job['id']}/events", after=seen, limit=100)
    for event in events:
        if line := _line(event["type"], event["data"]):
            console.print(line)
    return events[-1]["seq"] if events else seen


def _line(kind: str, data: dict[str, Any]) -> str:
    """Return what to say of an event; an unknown kind is not spoken of."""
    say = _LINES.get(kind)
    return say(data) if say is not None else ""


def _candidates(data: dict[str, Any]) -> str:
    plans = [
        f"{plan['name']} {plan['held_out_robust_accuracy']:.3f}" for plan in data["candidates"]
    ]
    return f"    robust after projection: {', '.join(plans)}; kept {data['chosen']}"


def _evaluation(data: dict[str, Any]) -> str:
    low, high = data["interval"]
    interval = f"[{low:.3f}, {high:.3f}], n = {data['n']}"
    return f"    {data['model']}, {data['attack']}: {data['value']:.3f} {interval}"


_LINES: dict[str, Callable[[dict[str, Any]], str]] = {
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
