"""What was asked for beside what there is: met, missed, or undecided with so few examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cstar_core.evaluation.statistics import Accuracy, judge


@dataclass(frozen=True)
class Target:
    """One thing that was asked for.

    An accuracy is `met` when the lower end of its 95 % `interval` meets it (evaluation.md, rule
    5). One that is missed while its interval still contains the target is `undecided`:
    `examples_needed` is then about how many would decide it, None where no number would.
    """

    metric: str
    requested: float
    achieved: float
    met: bool
    interval: tuple[float, float] | None = None
    undecided: bool = False
    examples_needed: int | None = None
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """The row of a report."""
        row = asdict(self)
        met, interval = row.pop("met"), row.pop("interval")
        return row | {
            "interval": None if interval is None else list(interval),
            "outcome": "met" if met else "missed",
        }


def at_least(metric: str, requested: float, achieved: float) -> Target:
    """A size that must not be smaller, such as the ratio."""
    return Target(metric, requested, achieved, met=achieved >= requested)


def at_most(metric: str, requested: float, achieved: float) -> Target:
    """A size that must not be larger, such as the number of parameters."""
    return Target(metric, requested, achieved, met=achieved <= requested)


def accuracy_target(metric: str, requested: float, figure: Mapping[str, Any]) -> Target:
    """An accuracy, judged by the interval of `figure`, which has `correct` and `n`."""
    accuracy = Accuracy(int(figure["correct"]), int(figure["n"]))
    judged = judge(accuracy, requested)
    return Target(
        metric,
        requested,
        accuracy.value,
        met=judged.outcome == "met",
        interval=accuracy.interval,
        undecided=judged.undecided,
        examples_needed=judged.examples_needed,
        note=_note(accuracy, judged.undecided, judged.examples_needed),
    )


def _note(accuracy: Accuracy, undecided: bool, needed: int | None) -> str:
    if not undecided:
        return ""
    if needed is None:
        return f"{accuracy.n} examples do not decide it; it is too close for ten million to do so"
    return f"{accuracy.n} examples do not decide it; about {needed:,} would, if there are so many"
