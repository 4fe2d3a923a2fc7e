"""Structured filter pruning, a baseline: whole channels are dropped from a network.

`coupling` traces which channels stand or fall together (as `groups`, found by the union-find of
`dimensions` over what `nodes` do), `saliency` says how much each matters, `cost` what keeping so
many costs, `selection` which are kept under budgets; `plan` is what it returns and `surgery` takes
the rest out. Nothing here looks at images or trains. What is not understood keeps its channels.
"""

from cstar_core.pruning.coupling import coupling
from cstar_core.pruning.groups import ChannelGroup, Coupling, Member
from cstar_core.pruning.plan import GroupPlan, PrunedLayer, PruningPlan
from cstar_core.pruning.saliency import saliency
from cstar_core.pruning.selection import ChannelSelection, check_budgets
from cstar_core.pruning.surgery import prune

__all__ = [
    "ChannelGroup",
    "ChannelSelection",
    "Coupling",
    "GroupPlan",
    "Member",
    "PrunedLayer",
    "PruningPlan",
    "check_budgets",
    "coupling",
    "prune",
    "saliency",
]
