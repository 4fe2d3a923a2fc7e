"""What a run of the benchmarks found: rows, each with its bar, and all of them as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from benchmarks.harness import Timing

Unit = Literal["x", "%", "points"]


@dataclass(frozen=True)
class Bar:
    """What a figure must reach ("at least") and should reach ("goal")."""

    at_least: float
    goal: float
    smaller_is_better: bool = False

    def met_by(self, figure: float) -> bool:
        """Whether `figure` reaches `at_least`."""
        return figure <= self.at_least if self.smaller_is_better else figure >= self.at_least


@dataclass(frozen=True)
class Row:
    """One comparison: `figure` says how `ours` does beside `peer`, in `unit`.

    In the unit "x" it is how many times faster ours is. `bar` is None where the row is there to
    explain another one. `timings` are by candidate.
    """

    id: str
    quantity: str
    ours: str
    peer: str
    figure: float
    unit: Unit = "x"
    bar: Bar | None = None
    note: str = ""
    timings: Mapping[str, Timing] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the bar is reached; None without one."""
        return None if self.bar is None else self.bar.met_by(self.figure)


def speed_up(
    target: str,
    quantity: str,
    timings: Mapping[str, Timing],
    *,
    ours: str,
    peer: str,
    bar: Bar | None = None,
    note: str = "",
) -> Row:
    """The row for how many times faster the candidate `ours` is than `peer`, by their medians."""
    figure = timings[peer].median_ms / timings[ours].median_ms
    pair = {name: timings[name] for name in (ours, peer)}
    return Row(target, quantity, ours, peer, figure, bar=bar, note=note, timings=pair)


@dataclass(frozen=True)
class Results:
    """All rows of one run; `skipped` says for the other targets why they were not measured."""

    rows: tuple[Row, ...]
    skipped: Mapping[str, str]
    environment: Mapping[str, Any]

    def to_json(self) -> str:
        """The results as text."""
        return json.dumps(asdict(self), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Results:
        """The results that `to_json` wrote; raises KeyError or TypeError for anything else."""
        found = json.loads(text)
        return cls(tuple(map(_row, found["rows"])), found["skipped"], found["environment"])


def _row(values: dict[str, Any]) -> Row:
    bar = values["bar"] and Bar(**values["bar"])
    timings = {name: Timing(**timing) for name, timing in values["timings"].items()}
    return Row(**values | {"bar": bar, "timings": timings})
