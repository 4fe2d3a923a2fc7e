"""Accuracies as counts with a 95 % interval, and the paired comparison of two models."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import Tensor

# The 97.5 % quantile of the standard normal distribution: two-sided 95 %.
_Z = 1.959963984540054
# Below this the 95 % interval is wider than about +-3 points: a screening, not a result.
SCREENING_BELOW = 1000
# Nobody evaluates more: beyond it, "how many would decide it" has no useful answer.
MOST_EXAMPLES = 10_000_000


@dataclass(frozen=True)
class Accuracy:
    """`correct` of `n` examples. Raises ValueError unless 0 <= correct <= n and n >= 1."""

    correct: int
    n: int

    def __post_init__(self) -> None:
        if not (0 <= self.correct <= self.n and self.n >= 1):
            raise ValueError(f"need 0 <= correct <= n and n >= 1, got {self.correct} of {self.n}")

    @classmethod
    def of(cls, correct: Tensor) -> Accuracy:
        """From one bool per example, (N,)."""
        return cls(correct=int(correct.sum()), n=correct.numel())

    @property
    def value(self) -> float:
        """The accuracy, from 0 to 1."""
        return self.correct / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % score interval of Wilson (1927)."""
        return wilson_interval(self.value, self.n)

    @property
    def screening(self) -> bool:
        """Whether n is too small for more than a first look."""
        return self.n < SCREENING_BELOW

    def meets(self, target: float) -> bool:
        """Whether even the lower end of the interval reaches `target`."""
        return self.interval[0] >= target

    def to_json(self) -> dict[str, Any]:
        """{"value", "n", "interval": [low, high]}."""
        return {"value": self.value, "n": self.n, "interval": list(self.interval)}


Outcome = Literal["met", "missed"]


@dataclass(frozen=True)
class Judgement:
    """What an accuracy says of a target; `examples_needed` is set when it is undecided.

    `undecided`: missed, but the interval still contains the target, so that more examples may yet
    show it to be met or out of reach.
    """

    outcome: Outcome
    undecided: bool
    examples_needed: int | None

    def to_json(self) -> dict[str, Any]:
        """The judgement as a report lists it."""
        return asdict(self)


def judge(accuracy: Accuracy, target: float) -> Judgement:
    """Whether `accuracy` meets `target` by its interval, and how many examples would decide it."""
    low, high = accuracy.interval
    undecided = low < target <= high
    return Judgement(
        outcome="met" if accuracy.meets(target) else "missed",
        undecided=undecided,
        examples_needed=(
            examples_to_decide(accuracy.correct, accuracy.n, target) if undecided else None
        ),
    )


def examples_to_decide(correct: int, n: int, target: float) -> int | None:
    """The fewest examples whose interval leaves out `target` if the accuracy stays as observed.

    Wilson's interval inverts the score test: `target` t lies outside exactly when
    |p - t| > z sqrt(t (1 - t) / N). None when the observed accuracy equals the target, or when
    more than ten million examples would be needed. Raises ValueError as `Accuracy` does.
    """
    value = Accuracy(correct, n).value
    if value == target:
        return None
    if not 0 <= target <= 1:
        return 1  # no accuracy reaches it: every interval leaves it out
    gap = (value - target) ** 2
    if _Z**2 * target * (1 - target) > MOST_EXAMPLES * gap:  # the gap may underflow to 0
        return None
    estimate = _Z**2 * target * (1 - target) / gap
    # Rounding may put the estimate one off; the interval itself has the last word.
    candidates = range(max(1, math.floor(estimate) - 1), math.floor(estimate) + 4)
    return next((count for count in candidates if _leaves_out(value, count, target)), None)


def _leaves_out(value: float, n: int, target: float) -> bool:
    low, high = wilson_interval(value, n)
    return target < low or target > high


def wilson_interval(value: float, n: int) -> tuple[float, float]:
    """The 95 % score interval of Wilson (1927) for the share `value`, from 0 to 1, of n trials."""
    z2 = _Z**2
    centre = (value + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * math.sqrt(value * (1 - value) / n + z2 / (4 * n * n))
    # The ends are exactly 0 and 1 when none or all are correct; rounding must not say less.
    low = 0.0 if value == 0 else max(0.0, centre - half)
    high = 1.0 if value == 1 else min(1.0, centre + half)
    return low, high


@dataclass(frozen=True)
class PairedComparison:
    """Two models on the same examples: how many only one of them gets right.

    `p_value` is that of the exact two-sided McNemar test (McNemar 1947; binomial, no
    approximation): how surprising the imbalance is if the models are equally accurate.
    """

    only_before: int
    only_after: int
    n: int

    @classmethod
    def of(cls, before: Tensor, after: Tensor) -> PairedComparison:
        """From one bool per example and model, both (N,). ValueError if the lengths differ."""
        if before.shape != after.shape:
            raise ValueError(f"{before.numel()} and {after.numel()} examples are not pairs")
        before, after = before.bool().cpu(), after.bool().cpu()
        return cls(
            only_before=int((before & ~after).sum()),
            only_after=int((after & ~before).sum()),
            n=before.numel(),
        )

    @property
    def difference(self) -> float:
        """Accuracy after minus accuracy before."""
        return (self.only_after - self.only_before) / self.n

    @property
    def p_value(self) -> float:
        """2 P(X <= min(b, c)) for X ~ Binomial(b + c, 1/2), at most 1; exact in integers."""
        discordant = self.only_before + self.only_after
        term = tail = 1
        for k in range(min(self.only_before, self.only_after)):
            term = term * (discordant - k) // (k + 1)
            tail += term
        return min(1.0, tail / (1 << discordant) * 2)

    def to_json(self) -> dict[str, Any]:
        """The counts, the difference and the p-value."""
        return {
            "only_before": self.only_before,
            "only_after": self.only_after,
            "n": self.n,
            "difference": self.difference,
            "mcnemar_p": self.p_value,
        }
