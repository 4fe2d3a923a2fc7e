"""The ranks a layer may take: which values, which pairs, and which fraction of the largest."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from cstar_core.layers import Layer
from cstar_core.projection import Ranks

ASPECT_CAP = 4.0  # between r_out / O and r_in / I


@dataclass(frozen=True)
class RankGrid:
    """Ranks of one layer in multiples of `multiple`, with powers of two below it.

    The small powers of two keep budgets feasible that multiples alone could not meet.
    """

    layer: Layer
    multiple: int = 1

    @cached_property
    def values(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Allowed values of r_out and of r_in, ascending."""
        largest = self.layer.max_ranks
        return _values(largest.r_out, self.multiple), _values(largest.r_in, self.multiple)

    def at_fraction(self, fraction: float) -> Ranks:
        """The allowed ranks nearest to `fraction` of the largest, repaired."""
        largest = self.layer.max_ranks
        r_out, r_in = (
            _nearest(values, fraction * size)
            for values, size in zip(self.values, largest, strict=True)
        )
        return self.repaired(Ranks(r_out, r_in))

    def fraction(self, ranks: Ranks) -> float:
        """The mean of r_out and r_in as fractions of the largest."""
        largest = self.layer.max_ranks
        return (ranks.r_out / largest.r_out + ranks.r_in / largest.r_in) / 2

    def repaired(self, ranks: Ranks) -> Ranks:
        """`ranks` without dead rank: neither mode above what the other can feed."""
        taps = self.layer.taps
        r_out = _floor(self.values[0], min(ranks.r_out, ranks.r_in * taps))
        return Ranks(r_out, _floor(self.values[1], min(ranks.r_in, r_out * taps)))

    def neighbours(self, ranks: Ranks, *, aspect: float) -> list[Ranks]:
        """One step up in r_out, in r_in and in both; nothing dead, nothing past the aspect cap.

        The aspect is between the fractions r_out / O and r_in / I; a step that lessens it is
        always allowed.
        """
        r_out, r_in = _next(self.values[0], ranks.r_out), _next(self.values[1], ranks.r_in)
        both = Ranks(r_out, r_in)
        steps = [both, Ranks(r_out, ranks.r_in), Ranks(ranks.r_out, r_in)]
        if self.layer.kind != "conv":
            steps = [both]
        cap = max(aspect, self._aspect(ranks))
        return [
            step
            for step in dict.fromkeys(steps)
            if step != ranks and self._is_alive(step) and self._aspect(step) <= cap
        ]

    def _is_alive(self, ranks: Ranks) -> bool:
        taps = self.layer.taps
        return ranks.r_out <= ranks.r_in * taps and ranks.r_in <= ranks.r_out * taps

    def _aspect(self, ranks: Ranks) -> float:
        largest = self.layer.max_ranks
        aspect = ranks.r_out * largest.r_in / (ranks.r_in * largest.r_out)
        return max(aspect, 1 / aspect)


def _values(largest: int, multiple: int) -> tuple[int, ...]:
    small = [2**power for power in range(multiple.bit_length()) if 2**power < multiple]
    allowed = {*small, *range(multiple, largest + 1, multiple)}
    return tuple(sorted(value for value in allowed if value <= largest))


def _floor(values: Sequence[int], limit: float) -> int:
    return values[max(0, bisect_right(values, limit) - 1)]


def _next(values: Sequence[int], value: int) -> int:
    return values[min(bisect_right(values, value), len(values) - 1)]


def _nearest(values: Sequence[int], target: float) -> int:
    index = min(bisect_left(values, target), len(values) - 1)
    above, below = values[index], values[max(0, index - 1)]
    return above if above - target <= target - below else below
