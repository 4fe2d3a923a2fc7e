"""What every phase does with a network whose weights it has changed: statistics, then a score."""

from __future__ import annotations

from torch import nn

from cstar_core.normalization import NormalizedModel
from cstar_core.pipeline.workbench import Workbench
from cstar_core.training.calibration import reestimate_batch_norm
from cstar_core.training.selection import Score


def calibrated(workbench: Workbench, network: nn.Module) -> tuple[NormalizedModel, Score]:
    """Wrap `network`, re-estimate its batch norms, score it on held-out adversarial images."""
    model = workbench.normalised(network)
    reestimate_batch_norm(model, workbench.calibration_batches())
    return model, workbench.selection().score(model)


def held_out(score: Score) -> dict[str, float]:
    """Return a score under the names it has in findings."""
    return {
        "held_out_clean_accuracy": score.clean,
        "held_out_robust_accuracy": score.robust,
    }
