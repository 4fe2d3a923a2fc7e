"""Which epoch is kept: chosen on held-out TRAINING data, never on the test set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from cstar_core.attacks import ThreatModel
from cstar_core.evaluation.attacks.robustness import PgdSettings, clean_correct, pgd_correct
from cstar_core.folding import attack_target


@dataclass(frozen=True, order=True)
class Score:
    """Held-out accuracies in [0, 1], ordered by the robust one, ties by the clean one."""

    robust: float
    clean: float


def select_best(scores: Mapping[int, Score]) -> int:
    """The epoch with the best score; of equal ones the earliest. ValueError if there are none."""
    if not scores:
        raise ValueError("no epoch has been scored")
    return max(sorted(scores), key=scores.__getitem__)


class HeldOutSelection:
    """Scores each epoch's model by a short PGD on held-out data and keeps the best weights.

    `images` (N, C, H, W) are uint8 or float in [0, 1] and must come from the training set. Every
    epoch is attacked with the same seed, so that epochs differ by their weights alone.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        threat: ThreatModel,
        *,
        seed: int,
        settings: PgdSettings | None = None,
        batch_size: int = 256,
    ) -> None:
        self.images, self.labels, self.threat = images, labels, threat
        self.seed, self.batch_size = seed, batch_size
        self.settings = settings or PgdSettings(steps=10)
        self.scores: dict[int, Score] = {}
        self.best_state: dict[str, Tensor] = {}

    def score(self, model: nn.Module) -> Score:
        """Clean and robust accuracy of `model` on the held-out images."""
        clean = clean_correct(model, self.images, self.labels, batch_size=self.batch_size)
        robust = pgd_correct(
            attack_target(model),
            self.images,
            self.labels,
            self.threat,
            settings=self.settings,
            seed=self.seed,
            batch_size=self.batch_size,
        )
        return Score(robust=robust.float().mean().item(), clean=clean.float().mean().item())

    def epoch_end(self, epoch: int, model: nn.Module) -> dict[str, float]:
        """Score `model`, keep a copy of its weights if it is the best so far; the metrics."""
        self.scores[epoch] = self.score(model)
        if self.best_epoch == epoch:
            self.best_state = {
                name: tensor.detach().clone() for name, tensor in model.state_dict().items()
            }
        current = self.scores[epoch]
        return {
            "held_out_robust_accuracy": current.robust,
            "held_out_clean_accuracy": current.clean,
            "best_epoch": float(self.best_epoch + 1),  # counted from 1, as people do
        }

    @property
    def best_epoch(self) -> int:
        """The epoch kept so far."""
        return select_best(self.scores)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only."""
        scores = {epoch: [score.robust, score.clean] for epoch, score in self.scores.items()}
        return {"scores": scores, "best_state": self.best_state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`."""
        self.scores = {
            int(epoch): Score(robust=robust, clean=clean)
            for epoch, (robust, clean) in state["scores"].items()
        }
        self.best_state = dict(state["best_state"])
