"""Global rank selection: the ranks of all layers at once, under budgets for the whole network.

`plan_network` is the way in. `inventory` knows what layers and budgets cost, `latency`, `timing`
and `factors` what layers take on this device, `spectra` what energy ranks keep, `fisher` what a
layer matters to the loss, `scope` which layers may be factorised at all, `feasibility` how far that
can go; `uniform` and `energy` choose ranks, `climb` spends the budget, `candidates` offers the
plans to be scored, `plan` is what they all return. Nothing here trains or crafts attacks.

The paper (Phan et al., CSTAR, AAAI 2023) says that the ranks are determined globally; how is not
published, so every rule in this package is a reconstruction of this project.
"""

from cstar_core.ranks.candidates import Proposal, candidates, plan_network
from cstar_core.ranks.energy import energy_plan
from cstar_core.ranks.feasibility import minimum, needed_scope
from cstar_core.ranks.fisher import fisher_weights
from cstar_core.ranks.inventory import Budget, Inventory, Unit
from cstar_core.ranks.latency import LatencyTable, LayerTimes
from cstar_core.ranks.plan import LayerPlan, Method, RankPlan
from cstar_core.ranks.renewal import eased, renew
from cstar_core.ranks.scope import Scope, why_dense
from cstar_core.ranks.spectra import EnergyTable, spectra
from cstar_core.ranks.timing import time_layers
from cstar_core.ranks.uniform import uniform_plan

__all__ = [
    "Budget",
    "EnergyTable",
    "Inventory",
    "LatencyTable",
    "LayerPlan",
    "LayerTimes",
    "Method",
    "Proposal",
    "RankPlan",
    "Scope",
    "Unit",
    "candidates",
    "eased",
    "energy_plan",
    "fisher_weights",
    "minimum",
    "needed_scope",
    "plan_network",
    "renew",
    "spectra",
    "time_layers",
    "uniform_plan",
    "why_dense",
]
