"""Accuracies as counts with a 95 % interval, and the paired comparison of two models."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

# The 97.5 % quantile of the standard normal distribution: two-sided 95 %.
_Z = 1.959963984540054
# Below this the 95 % interval is wider than about +-3 points: a screening, not a result.
SCREENING_BELOW = 1000


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
        p, n, z2 = self.value, self.n, _Z**2
        centre = (p + z2 / (2 * n)) / (1 + z2 / n)
        half = _Z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
        # The ends are exactly 0 and 1 when none or all are correct; rounding must not say less.
        low = 0.0 if self.correct == 0 else max(0.0, centre - half)
        high = 1.0 if self.correct == n else min(1.0, centre + half)
        return low, high

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
