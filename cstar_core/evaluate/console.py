"""What the command says: progress on standard error, one table on standard output."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from cstar_core.evaluate.kept import Kept

_HEAD = ("network", "parameters", "clean", "pgd-20", "autoattack", "targets", "figures")
_STEP = 0.1  # of one network's evaluation, between two lines of progress in a file


class Progress:
    """A watch that says on standard error how far one network is, and keeps what is finished."""

    def __init__(self, title: str, kept: Kept) -> None:
        self._title, self._kept = title, kept
        self._live = sys.stderr.isatty()
        self._said = 0.0

    def progress(self, fraction: float) -> None:
        """Rewrite one line on a terminal; in a file, add a line now and then."""
        if self._live:
            print(f"\r{self._title}: {fraction:4.0%} ", end="", file=sys.stderr, flush=True)
        elif fraction >= self._said + _STEP:
            self._said = fraction
            say(f"{self._title}: {fraction:.0%}")

    def kept(self) -> None:
        """Keep what is finished, so that a killed command goes on behind it."""
        self._kept.save()

    def event(self, name: str, data: Mapping[str, Any]) -> None:
        """Say what was found, and how long the longest part will take."""
        if name == "evaluation.estimated":
            self._line(f"{data['attack']} on {data['n']} images: about {_time(data['seconds'])}")
        elif name == "evaluation.finished":
            low, high = data["interval"]
            figure = f"{data['value']:.3f} [{low:.3f}, {high:.3f}], n = {data['n']}"
            self._line(f"{data['attack']} {figure}", model=data["model"])

    def _line(self, text: str, *, model: str = "after") -> None:
        of = " (baseline)" if model == "before" else ""
        say(f"{chr(13) if self._live else ''}{self._title}{of}: {text}")


def say(text: str) -> None:
    """A line on standard error."""
    print(text, file=sys.stderr, flush=True)


def table(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """All networks, (name, report) each, one line each, in columns that fit."""
    cells = [_HEAD, *(_cells(name, report["result"]) for name, report in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEAD))]
    lines = ("  ".join(_padded(row, widths)).rstrip() for row in cells)
    return "\n".join(lines)


def verdicts(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """The headline of each network, its targets and why its figures are not to be relied on."""
    return "\n".join(line for name, report in rows for line in _verdict(name, report))


def _cells(name: str, result: Mapping[str, Any]) -> tuple[str, ...]:
    after, verdict = result["after"], result["verdict"]
    pgd, strongest = after["robust_accuracy"].values()
    figures = (after["clean_accuracy"], pgd, strongest)
    return (
        name,
        f"{after['parameters']:,}",
        *(_accuracy(figure) for figure in figures),
        verdict["targets"],
        f"{verdict['reliability']}, {verdict['label']}",
    )


def _padded(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    name, *rest = row
    flush_right = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
    return [name.ljust(widths[0]), *flush_right]


def _verdict(name: str, report: Mapping[str, Any]) -> list[str]:
    verdict = report["verdict"]
    lines = [f"{name}: {verdict['headline']}"]
    for target in report["result"]["targets"]:
        asked = f"{target['metric']} asked {target['requested']:g}, got {target['achieved']:.4g}"
        note = f" ({target['note']})" if target["note"] else ""
        lines.append(f"  {asked}: {target['outcome']}{note}")
    return lines + [f"  unreliable: {reason}" for reason in verdict["reasons"]]


def _accuracy(figure: Mapping[str, Any]) -> str:
    low, high = (100 * end for end in figure["interval"])
    return f"{100 * figure['value']:.1f} % [{low:.1f}, {high:.1f}] n={figure['n']}"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
