"""Latency as data: what each layer takes dense and at a grid of ranks, on one device.

Nanoseconds throughout, integers. `timing` makes such tables; given one, a plan is deterministic.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cstar_core.projection import Ranks


@dataclass(frozen=True)
class LayerTimes:
    """Nanoseconds for one image: `dense`, and of each factor over the grid of ranks.

    `first` (len(in_ranks),) and `last` (len(out_ranks),) are the outer factors, `core`
    (len(out_ranks), len(in_ranks)) the one between; an SVD pair has none, `core` is empty. A layer
    that cannot be factorised has empty grids. Times never fall as ranks rise; grids start at 1.
    """

    dense: int
    out_ranks: tuple[int, ...] = ()
    in_ranks: tuple[int, ...] = ()
    first: tuple[int, ...] = ()
    last: tuple[int, ...] = ()
    core: tuple[tuple[int, ...], ...] = ()

    def at(self, ranks: Ranks | None) -> int:
        """Nanoseconds at `ranks`, linear between the grid's; dense if `ranks` is None."""
        if ranks is None:
            return self.dense
        outer = _between(self.in_ranks, self.first, ranks.r_in)
        outer += _between(self.out_ranks, self.last, ranks.r_out)
        if not self.core:
            return outer
        row = _segment(self.out_ranks, ranks.r_out)
        ends = [_between(self.in_ranks, times, ranks.r_in) for times in self.core[row : row + 2]]
        return outer + _between(self.out_ranks[row : row + 2], ends, ranks.r_out)


@dataclass(frozen=True)
class LatencyTable:
    """The times of all `layers` by name, of the rest of the network (`kept`), and on what."""

    device: str
    kept: int
    layers: Mapping[str, LayerTimes]

    def to_dict(self) -> dict[str, Any]:
        """The table as values that JSON knows."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LatencyTable:
        """The table that `to_dict` described; raises KeyError or TypeError for anything else."""
        layers = {
            name: LayerTimes(**{key: _frozen(value) for key, value in times.items()})
            for name, times in values["layers"].items()
        }
        return cls(device=values["device"], kept=values["kept"], layers=layers)


def _between(grid: Sequence[int], times: Sequence[int], rank: int) -> int:
    if len(grid) == 1:
        return times[0]
    index = _segment(grid, rank)
    low, high = grid[index : index + 2]
    # Rounding down keeps the order: more rank never gets cheaper.
    return times[index] + (times[index + 1] - times[index]) * (rank - low) // (high - low)


def _segment(grid: Sequence[int], rank: int) -> int:
    """Index of the last grid value not above `rank`, of the last but one at the end."""
    return max(0, min(bisect_right(grid, rank), len(grid) - 1) - 1)


def _frozen(value: Any) -> Any:
    """Lists from JSON as the tuples they were."""
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value
