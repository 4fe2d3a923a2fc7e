"""Which channels stay, under budgets for the whole network: uniform and global candidates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn

from cstar_core.errors import TargetInfeasible, TargetUnsupported
from cstar_core.layers import Layer
from cstar_core.pruning.cost import UNITS, CostModel, Kept
from cstar_core.pruning.coupling import coupling
from cstar_core.pruning.groups import Coupling
from cstar_core.pruning.plan import GroupPlan, PrunedLayer, PruningPlan
from cstar_core.pruning.saliency import saliency
from cstar_core.ranks import Budget

BISECTIONS = 40  # well below the width of one channel
FLOOR = 0.5  # of what uniform pruning leaves to a group


class ChannelSelection:
    """Chooses channels of `network` (with `layers` from `describe`) under all `budgets`.

    Raises as `check_budgets` does.
    """

    def __init__(
        self, network: nn.Module, layers: Iterable[Layer], budgets: Sequence[Budget]
    ) -> None:
        self._layers, self._budgets = tuple(layers), tuple(budgets)
        self._coupled = coupling(network)
        self._cost = CostModel(network, self._layers, self._coupled)
        _check_feasible(self._cost, self._coupled, self._budgets)
        self._saliency = saliency(network, self._coupled)
        self._prunable = [group.name for group in self._coupled.prunable]

    def uniform(self) -> PruningPlan:
        """The same fraction of every group; what it leaves of the budgets goes to the most cut."""
        fraction = self._uniform_fraction()
        kept = self._at_fraction(fraction)
        left = set(self._prunable)
        while left:
            name = min(sorted(left), key=lambda name: kept[name] / self._cost.dense[name])
            if not self._take(kept, name):
                left.remove(name)
        return self._plan("uniform", kept, {"fraction": fraction})

    def ranked(self) -> PruningPlan:
        """The most salient channels of the whole network, with a floor for every group.

        A group keeps at least half of what the uniform plan's fraction gives it, so that none is
        cut off altogether.
        """
        floors = self._at_fraction(FLOOR * self._uniform_fraction())
        ranking = self._ranking(floors)
        low, high = 0, len(ranking)
        while low < high:
            middle = (low + high + 1) // 2
            fits = self._fits(_with(floors, ranking[:middle]))
            low, high = (middle, high) if fits else (low, middle - 1)
        kept = _with(floors, ranking[:low])
        full: set[str] = set()  # costs only grow, so what does not fit now never will
        for name in ranking[low:]:
            if name not in full and not self._take(kept, name):
                full.add(name)
        return self._plan("ranked", kept, {"floor": FLOOR})

    def _plan(
        self, name: str, kept: Kept, settings: Mapping[str, str | int | float]
    ) -> PruningPlan:
        groups = tuple(
            GroupPlan(
                group.name,
                group.size,
                _strongest(self._saliency[group.name], kept[group.name]),
                group.reason,
            )
            for group in self._coupled.groups
        )
        dense = self._cost.dense
        return PruningPlan(
            name=name,
            strategy=name,
            groups=groups,
            members=self._coupled.members,
            layers=tuple(self._layer_plans(kept)),
            parameters=self._cost.total(kept, "parameters"),
            macs=self._cost.total(kept, "macs"),
            dense_parameters=self._cost.total(dense, "parameters"),
            dense_macs=self._cost.total(dense, "macs"),
            budgets=self._budgets,
            settings=settings,
        )

    def _layer_plans(self, kept: Kept) -> Iterable[PrunedLayer]:
        kinds = {layer.name: layer.kind for layer in self._layers}
        dense = self._cost.dense
        for part in self._cost.parts:
            member = part.member
            if member.name in kinds:
                yield PrunedLayer(
                    name=member.name,
                    kind=kinds[member.name],
                    inputs=kept[member.inputs] * member.spread,
                    outputs=kept[member.outputs],
                    dense_inputs=dense[member.inputs] * member.spread,
                    dense_outputs=dense[member.outputs],
                    parameters=part.weights(kept),
                    macs=part.macs(kept),
                    dense_parameters=part.weights(dense),
                    dense_macs=part.macs(dense),
                )

    def _uniform_fraction(self) -> float:
        low, high = 0.0, 1.0
        if self._fits(self._cost.dense):
            return high
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            fits = self._fits(self._at_fraction(middle))
            low, high = (middle, high) if fits else (low, middle)
        return low

    def _at_fraction(self, fraction: float) -> dict[str, int]:
        share = {name: max(1, int(fraction * self._cost.dense[name])) for name in self._prunable}
        return {**self._cost.dense, **share}

    def _ranking(self, floors: Kept) -> list[str]:
        """Groups of all channels above their floors, the most salient channel first."""
        entries = [
            (-value, name)
            for name in self._prunable
            for value in self._saliency[name].sort(descending=True).values[floors[name] :].tolist()
        ]
        return [name for _, name in sorted(entries)]

    def _take(self, kept: dict[str, int], name: str) -> bool:
        """Keep one channel more of a group, if there is one and the budgets allow it."""
        more = kept | {name: kept[name] + 1}
        if more[name] > self._cost.dense[name] or not self._fits(more):
            return False
        kept[name] += 1
        return True

    def _fits(self, kept: Kept) -> bool:
        return all(self._cost.total(kept, b.unit) <= b.limit for b in self._budgets)


def check_budgets(network: nn.Module, layers: Iterable[Layer], budgets: Sequence[Budget]) -> None:
    """Raise `TargetInfeasible` or `TargetUnsupported` if dropping channels cannot meet `budgets`.

    Infeasible, with the best that can be met, is what one channel in every prunable group still
    exceeds; unsupported is a budget that is not on parameters, MACs or bytes. Weights are not
    looked at.
    """
    coupled = coupling(network)
    _check_feasible(CostModel(network, layers, coupled), coupled, budgets)


def _with(floors: Kept, channels: Sequence[str]) -> dict[str, int]:
    more = Counter(channels)
    return {name: count + more[name] for name, count in floors.items()}


def _strongest(values: Tensor, count: int) -> tuple[int, ...]:
    """Indices of the `count` largest values, ascending; of equal ones the first."""
    order = values.argsort(descending=True, stable=True)[:count]
    return tuple(sorted(order.tolist()))


def _check_feasible(cost: CostModel, coupled: Coupling, budgets: Sequence[Budget]) -> None:
    least = cost.dense | {group.name: 1 for group in coupled.prunable}
    for budget in budgets:
        if budget.unit not in UNITS:
            raise TargetUnsupported(
                f"channels cannot be dropped for a limit on {budget.unit}: set one on "
                f"{', '.join(UNITS)}, or ask for method 'cstar'"
            )
        best = cost.total(least, budget.unit)
        if best > budget.limit:
            ratio = cost.total(cost.dense, budget.unit) / best
            raise TargetInfeasible(
                f"a budget of {budget.limit:,} {budget.unit} cannot be met by dropping channels: "
                f"with one channel in every group that may be pruned this network has {best:,} "
                f"{budget.unit}; ask for a ratio of {int(ratio * 10) / 10:g} or less, or for "
                "another method",
                unit=budget.unit,
                best=best,
            )
