"""Phase `evaluating`: the uploaded and the exported network on the same test examples.

"After" is the network as the exported files give it back through the shipped loader, not the one
in memory (evaluation.md, rule 11).
"""

from __future__ import annotations

from cstar_core.evaluation.run import BEFORE, Networks, evaluate
from cstar_core.export import load
from cstar_core.pipeline.artifact import write_artifact
from cstar_core.pipeline.evaluation_watch import EvaluationWatch
from cstar_core.pipeline.observer import Observer
from cstar_core.pipeline.state import State
from cstar_core.pipeline.workbench import Workbench

PHASE = "evaluating"


def run(workbench: Workbench, state: State, observer: Observer) -> None:
    """Evaluate the uploaded and the exported network; every finished batch is kept."""
    networks = Networks(
        before=workbench.dense_model(dict(workbench.uploaded)),
        after=load(write_artifact(workbench, state)).to(workbench.device),
        uploaded=BEFORE,
    )
    state.findings[PHASE] = evaluate(
        networks,
        workbench.test,
        workbench.evaluation,
        class_names=workbench.data.class_names,
        ledgers=state.verdicts,
        watch=EvaluationWatch(PHASE, state, observer),
    )
