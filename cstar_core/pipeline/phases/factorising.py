"""Phase `factorising`: planned layers become plain convolutions of their factors."""

from __future__ import annotations

from cstar_core.factorization import factorise
from cstar_core.pipeline.observer import Observer
from cstar_core.pipeline.phases.compressing import calibrated, held_out
from cstar_core.pipeline.state import State
from cstar_core.pipeline.workbench import Workbench
from cstar_core.ranks import RankPlan

PHASE = "factorising"


def run(workbench: Workbench, state: State, observer: Observer) -> None:
    """Factorise W, and Z where ADMM has left one; keep the more robust one on held-out images."""
    plan = RankPlan.from_dict(state.plan)
    dense = workbench.dense_model(state.dense).network
    sources = {"W": {}, "Z": state.admm_targets} if state.admm_targets else {"W": {}}
    scores, networks = {}, {}
    for source, weights in sources.items():
        model, scores[source] = calibrated(workbench, factorise(dense, plan, weights=weights))
        networks[source] = model.network
    chosen = max(scores, key=scores.__getitem__)
    state.factorised = dict(networks[chosen].state_dict())
    state.admm_targets = {}
    state.findings[PHASE] = {
        "factorised": chosen,
        **held_out(scores[chosen]),
        "candidates": {source: held_out(score) for source, score in scores.items()},
    }
    observer.event("network.factorised", state.findings[PHASE])
