"""Phase `checking`: how good and how robust is the uploaded network?"""

from __future__ import annotations

from cstar_core.pipeline.observer import Observer
from cstar_core.pipeline.state import State
from cstar_core.pipeline.workbench import Workbench

PHASE = "checking"


def run(workbench: Workbench, state: State, observer: Observer) -> None:
    """Score the uploaded network on held-out training images and see whether it is robust enough.

    Robust enough is `min_accuracy` where the client asked for one, else the profile's share of
    the clean accuracy (method.md section 5, step 0). Raises TargetInfeasible or TargetUnsupported
    for limits that are out of reach of the task's method: nothing has been trained yet.
    """
    workbench.check_limits()
    task = workbench.task
    state.dense = dict(workbench.uploaded)
    score = workbench.selection().score(workbench.dense_model(state.dense))
    mark = task.min_robust_accuracy
    if mark is None:
        mark = task.profile.robust_mark * score.clean
    findings = {
        "held_out_clean_accuracy": score.clean,
        "held_out_robust_accuracy": score.robust,
        "held_out_examples": len(workbench.held_out),
        "robust_mark": mark,
        "robust": score.robust >= mark,
    }
    state.findings[PHASE] = findings
    observer.metric(PHASE, "held_out_clean_accuracy", score.clean, step=0)
    observer.metric(PHASE, "held_out_robust_accuracy", score.robust, step=0)
    observer.event("model.checked", findings)
