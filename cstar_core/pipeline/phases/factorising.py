"""Phase `factorising`: planned layers become plain convolutions of their factors."""

from __future__ import annotations

from cstar_core.factorization import factorise
from cstar_core.pipeline.observer import Observer
from cstar_core.pipeline.state import State
from cstar_core.pipeline.workbench import Workbench
from cstar_core.ranks import RankPlan
from cstar_core.training.calibration import reestimate_batch_norm

PHASE = "factorising"


def run(workbench: Workbench, state: State, observer: Observer) -> None:
    """Factorise W and Z of ADMM and keep the one that is more robust on held-out images."""
    plan = RankPlan.from_dict(state.plan)
    dense = workbench.dense_model(state.dense).network
    scores, networks = {}, {}
    for source, weights in {"W": {}, "Z": state.admm_targets}.items():
        model = workbench.normalised(factorise(dense, plan, weights=weights))
        reestimate_batch_norm(model, workbench.calibration_batches())
        scores[source] = workbench.selection().score(model)
        networks[source] = model.network
    chosen = max(scores, key=scores.__getitem__)
    state.factorised = dict(networks[chosen].state_dict())
    state.admm_targets = {}
    state.findings[PHASE] = {
        "factorised": chosen,
        "held_out_clean_accuracy": scores[chosen].clean,
        "held_out_robust_accuracy": scores[chosen].robust,
    }
    observer.event("network.factorised", state.findings[PHASE])
