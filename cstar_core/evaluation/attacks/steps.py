"""Whether a longer attack would break many more: a sign that the short one was stopped early."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from cstar_core.attacks import ThreatModel
from cstar_core.evaluation.attacks.robustness import PgdSettings, pgd_correct
from cstar_core.evaluation.batches import Completed, OnBatch


@dataclass(frozen=True)
class StepsCheck:
    """Verdicts, (N,) bool, of an attack of few steps and of one of many on its survivors."""

    few: PgdSettings
    many: PgdSettings
    few_correct: Tensor
    many_correct: Tensor

    @property
    def broken_more(self) -> int:
        """How many survivors of the few steps the many steps broke."""
        return int((self.few_correct & ~self.many_correct).sum())

    def to_json(self) -> dict[str, Any]:
        """{"few", "many": names of the attacks, "n", "broken_more"}."""
        return {
            "few": self.few.name,
            "many": self.many.name,
            "n": self.few_correct.numel(),
            "broken_more": self.broken_more,
        }


def steps_check(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    few_verdict: Tensor,
    *,
    few: PgdSettings | None = None,
    many: PgdSettings | None = None,
    seed: int,
    batch_size: int = 256,
    completed: Completed | None = None,
    on_batch: OnBatch | None = None,
) -> StepsCheck:
    """Attack again, by `many` (100 steps), only what survived `few` (20 steps): `few_verdict` (N,).

    `completed` and `on_batch` count batches of survivors.
    """
    few, many = few or PgdSettings(), many or PgdSettings(steps=100)
    survivors = few_verdict.to(images.device)
    verdict = survivors.clone()
    verdict[survivors] = pgd_correct(
        model,
        images[survivors],
        labels[survivors],
        threat,
        settings=many,
        seed=seed,
        batch_size=batch_size,
        completed=completed,
        on_batch=on_batch,
    ).to(verdict.device)
    return StepsCheck(few, many, survivors, verdict)
