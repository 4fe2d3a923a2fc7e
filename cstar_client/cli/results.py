"""What a job found: before and after side by side, and its targets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

Figures = Mapping[str, Any]


def print_result(console: Console, result: Figures) -> None:
    """Print the figures of a job that succeeded, and its targets."""
    if result.get("before") and result.get("after"):
        print_table(console, result)
    print_targets(console, result)
    if headline := result.get("verdict", {}).get("headline"):
        console.print(headline, markup=False)


def print_table(console: Console, result: Figures, *, epsilon: float | None = None) -> None:
    """Print parameters, MACs, size, latency and accuracies with their 95 % intervals."""
    before, after = result["before"], result["after"]
    table = Table(title="before and after")
    for heading in ("", "uploaded", "compressed", ""):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, key, scale, unit in (
        ("parameters", "parameters", 1, ""),
        ("MACs per image", "macs", 1, ""),
        ("weights", "bytes", 1 / 1024, " KiB"),
    ):
        row = [f"{figures[key] * scale:,.0f}{unit}" for figures in (before, after)]
        table.add_row(name, *row, f"{before[key] / after[key]:.2f}x smaller")
    for batch in before["latency_ms"]:
        pair = [figures["latency_ms"][batch]["median_ms"] for figures in (before, after)]
        speed = pair[0] / pair[1]
        words = f"{speed:.2f}x faster" if speed >= 1 else f"{1 / speed:.2f}x slower"
        table.add_row(f"latency, {batch}", *(f"{value:.2f} ms" for value in pair), words)
    table.add_row(
        "clean accuracy",
        _accuracy(before["clean_accuracy"]),
        _accuracy(after["clean_accuracy"]),
        _interval_note(after["clean_accuracy"]),
    )
    for attack, figure in after["robust_accuracy"].items():
        table.add_row(
            attack if epsilon is None else f"{attack}, epsilon {epsilon:g}",
            _accuracy(before["robust_accuracy"][attack]),
            _accuracy(figure),
            _interval_note(figure),
        )
    console.print(table)


def print_targets(console: Console, result: Figures) -> bool:
    """Print each target with its outcome; says whether all are met."""
    for target in result["targets"]:
        interval = target["interval"]
        within = f" in [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
        console.print(
            f"target {target['metric']}: asked {target['requested']:g}, "
            f"got {target['achieved']:.4g}{within}: {target['outcome']}"
        )
    return all(target["outcome"] == "met" for target in result["targets"])


def _accuracy(figure: Figures) -> str:
    low, high = figure["interval"]
    return f"{100 * figure['value']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def _interval_note(figure: Figures) -> str:
    label = f", {figure['label']}" if "label" in figure else ""
    return f"n = {figure['n']}{label}"
