"""Global rank selection: the ranks of all layers at once, under budgets for the whole network.

`inventory` knows what layers and budgets cost, `spectra` what energy ranks keep, `scope` which
layers may be factorised at all, `uniform` and `energy` choose ranks, `candidates` offers the plans
to be scored, `plan` is what they all return. Nothing here looks at images or trains.

The paper (Phan et al., CSTAR, AAAI 2023) says that the ranks are determined globally; how is not
published, so every rule in this package is a reconstruction of this project.
"""

from cstar_core.ranks.candidates import candidates
from cstar_core.ranks.energy import energy_plan
from cstar_core.ranks.inventory import Budget, Inventory, Unit
from cstar_core.ranks.plan import LayerPlan, Method, RankPlan
from cstar_core.ranks.renewal import renew
from cstar_core.ranks.scope import Scope, minimum, needed_scope
from cstar_core.ranks.spectra import EnergyTable, spectra
from cstar_core.ranks.uniform import uniform_plan

__all__ = [
    "Budget",
    "EnergyTable",
    "Inventory",
    "LayerPlan",
    "Method",
    "RankPlan",
    "Scope",
    "Unit",
    "candidates",
    "energy_plan",
    "minimum",
    "needed_scope",
    "renew",
    "spectra",
    "uniform_plan",
]
