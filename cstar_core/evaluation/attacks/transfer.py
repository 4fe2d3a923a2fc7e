"""Transfer: adversarial images crafted on one network and shown to another.

Of an uploaded network and its compressed version, what breaks the first often breaks the second.
Where it breaks more of the second than the white-box attacks on the second do, these are at fault.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cstar_core.attacks import ThreatModel, attack_mode, pgd
from cstar_core.evaluation.attacks.precision import float32_exact
from cstar_core.evaluation.attacks.robustness import PgdSettings, clean_correct
from cstar_core.evaluation.batches import (
    Completed,
    Ledger,
    OnBatch,
    Record,
    batch_slices,
    unit_interval,
)
from cstar_core.folding import attack_target
from cstar_core.training.randomness import generator


def transfer_correct(
    source: nn.Module,
    target: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    settings: PgdSettings | None = None,
    seed: int,
    batch_size: int = 256,
    completed: Completed | None = None,
    on_batch: OnBatch | None = None,
) -> Tensor:
    """Whether `target` classifies each image correctly, as it is and attacked on `source`, (N,).

    The attack is PGD on a copy of `source` with batch norms folded; its last iterate is shown, and
    of several restarts the one that misleads `source` most. Images that `target` gets wrong
    unattacked are not attacked. Batches in `completed` are not run again.
    """
    transfer = _Transfer(attack_target(source), target, threat, settings or PgdSettings(), seed)
    slices = list(batch_slices(len(images), batch_size))
    ledger = Ledger(len(slices), completed=completed, on_batch=on_batch)
    verdicts: list[bool] = []
    with float32_exact(source, target):
        for index, where in enumerate(slices):
            run = functools.partial(transfer.record, index, images[where], labels[where])
            verdicts += ledger.recall_or(str(index), run)["correct"]
    return torch.tensor(verdicts, dtype=torch.bool, device=labels.device)


@dataclass(frozen=True)
class _Transfer:
    """Crafts on one network and judges by another, one batch after another."""

    source: nn.Module
    target: nn.Module
    threat: ThreatModel
    settings: PgdSettings
    seed: int

    def record(self, index: int, images: Tensor, labels: Tensor) -> Record:
        """Which images of batch `index` the target classifies correctly, attacked and not."""
        images = unit_interval(images)
        correct = clean_correct(self.target, images, labels, batch_size=len(images))
        if correct.any():
            perturbed = self._craft(index, images[correct], labels[correct])
            correct[correct.clone()] = clean_correct(
                self.target, perturbed, labels[correct], batch_size=len(images)
            )
        return {"correct": correct.tolist(), "flags": []}

    def _craft(self, index: int, images: Tensor, labels: Tensor) -> Tensor:
        with attack_mode(self.source):
            return pgd(
                self.source,
                images,
                labels,
                self.threat,
                steps=self.settings.steps,
                step_size=self.settings.relative_step * self.threat.epsilon,
                random_start=True,
                generator=generator(self.seed, "transfer", index, device=images.device),
                restarts=self.settings.restarts,
                loss=self.settings.loss,
            )
