"""The training loop: attack a batch, descend on the loss, at any yield ready to be saved.

Dense training, ADMM and fine-tuning are this one loop; ADMM joins it as a `Constraint`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cstar_core.attacks import ThreatModel
from cstar_core.errors import Diverged
from cstar_core.evaluation.batches import unit_interval
from cstar_core.folding import FoldedCopy, attack_target
from cstar_core.training.augmentation import augment
from cstar_core.training.config import TrainingConfig, attack_batch
from cstar_core.training.ema import WeightAverage
from cstar_core.training.objectives import adversarial_cross_entropy, robust_distillation
from cstar_core.training.progress import Constraint, EpochEnd, Step
from cstar_core.training.randomness import generator
from cstar_core.training.schedules import learning_rate
from cstar_core.training.selection import HeldOutSelection


@dataclass
class _Position:
    """Where the run stands: the next step to take, and this epoch's running sums."""

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    correct: int = 0
    seen: int = 0


class AdversarialTrainer:
    """min_W E max_{|d| <= eps} loss(f(x + d; W), y) + penalty(W), by SGD (Madry et al. 2018).

    `images` (N, C, H, W) uint8 (or float in [0, 1]) and `labels` (N,) lie on the model's device.
    `phase` names the run, so that dense training, ADMM and fine-tuning draw different numbers
    from one seed. `state_dict()` is valid whenever `run()` has yielded: a run loaded from it ends
    with the same bits (on a CPU) as one that was never interrupted.

    Raises ValueError when the data and the settings do not fit together, Diverged from `run()`
    when the loss stops being finite.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        threat: ThreatModel,
        config: TrainingConfig,
        seed: int,
        phase: str,
        teacher: nn.Module | None = None,
        constraint: Constraint | None = None,
        selection: HeldOutSelection | None = None,
    ) -> None:
        if len(images) != len(labels) or not len(images):
            raise ValueError(f"{len(images)} images and {len(labels)} labels; need one label each")
        if (config.distillation is None) != (teacher is None):
            raise ValueError("give a teacher exactly when `distillation` is set")
        self.model, self.images, self.labels = model, images, labels
        self.threat, self.config, self.seed, self.phase = threat, config, seed, phase
        self.teacher = None if teacher is None else _frozen(teacher)
        self.constraint, self.selection = constraint, selection
        self.average = None if config.ema is None else WeightAverage(model, config.ema)
        self.optimizer = _sgd(model, config)
        self._target = attack_target(model)
        self._at = _Position()
        self._order: tuple[int, Tensor] | None = None

    @property
    def evaluated_model(self) -> nn.Module:
        """The model to score and keep: the moving average where there is one."""
        return self.model if self.average is None else self.average.model

    @property
    def examples_per_epoch(self) -> int:
        """Examples drawn each epoch, before the incomplete last batch is left out."""
        return min(len(self.images), self.config.examples_per_epoch or len(self.images))

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in an epoch; one smaller batch if there is not a single full one."""
        return max(1, self.examples_per_epoch // self.config.batch_size)

    def run(self) -> Iterator[Step | EpochEnd]:
        """Train from where the state stands to the end, yielding after every step and epoch."""
        while self._at.epoch < self.config.epochs:
            while self._at.step < self.steps_per_epoch:
                yield self._train_step()
            yield self._end_epoch()

    def load_best(self) -> None:
        """Put the weights to keep into `model`: the selected epoch's, else the average's."""
        if self.selection is not None and self.selection.best_state:
            self.model.load_state_dict(self.selection.best_state)
        elif self.average is not None:
            self.model.load_state_dict(self.average.model.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Everything `run` needs to go on, as tensors and plain values, by reference.

        Save it before the run goes on; `torch.load(..., weights_only=True)` reads it back.
        """
        parts: dict[str, Any] = {
            "position": vars(self._at).copy(),
            "model": dict(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
        }
        return parts | {name: part.state_dict() for name, part in self._stateful_parts()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict` of a trainer that was made with the same arguments."""
        self._at = _Position(**state["position"])
        self._order = None
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name, part in self._stateful_parts():
            part.load_state_dict(state[name])

    def _stateful_parts(self) -> Iterator[tuple[str, Any]]:
        for name in ("average", "constraint", "selection"):
            part = getattr(self, name)
            if part is not None:
                yield name, part

    def _train_step(self) -> Step:
        at = self._at
        rate = self._set_learning_rate()
        images, labels = self._batch()
        with self._autocast():
            adversarial = attack_batch(
                self.config.attack,
                self._attack_target(),
                images,
                labels,
                self.threat,
                generator=self._generator("attack", at.epoch, at.step),
            )
            self.model.train()
            loss, logits = self._objective(images, adversarial, labels)
        at.loss += self._descend(loss, rate)
        at.step += 1
        at.correct += int((logits.argmax(1) == labels).sum())
        at.seen += len(labels)
        return Step(
            epoch=at.epoch,
            epochs=self.config.epochs,
            step=at.step,
            steps_per_epoch=self.steps_per_epoch,
            loss=at.loss / at.step,
            accuracy=at.correct / at.seen,
        )

    def _attack_target(self) -> nn.Module:
        if isinstance(self._target, FoldedCopy):
            self._target.refresh()
        return self._target

    def _end_epoch(self) -> EpochEnd:
        at = self._at
        rate = self._learning_rate(at.epoch * self.steps_per_epoch + self.steps_per_epoch - 1)
        metrics = {
            "loss": at.loss / max(1, at.step),
            "train_robust_accuracy": at.correct / max(1, at.seen),
            "learning_rate": rate,
        }
        if self.constraint is not None:
            metrics |= self.constraint.epoch_end(at.epoch, learning_rate=rate)
        if self.selection is not None:
            metrics |= self.selection.epoch_end(at.epoch, self.evaluated_model)
        self._at = _Position(epoch=at.epoch + 1)
        return EpochEnd(epoch=at.epoch, epochs=self.config.epochs, metrics=metrics)

    def _objective(
        self, images: Tensor, adversarial: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        if self.teacher is None or self.config.distillation is None:
            return adversarial_cross_entropy(
                self.model,
                adversarial,
                labels,
                label_smoothing=self.config.label_smoothing,
            )
        return robust_distillation(
            self.model, self.teacher, images, adversarial, alpha=self.config.distillation
        )

    def _descend(self, loss: Tensor, rate: float) -> float:
        """One optimiser step; returns the loss, penalty included."""
        penalty = None if self.constraint is None else self.constraint.penalty()
        total = loss.item() + (0.0 if penalty is None else penalty.item())
        self._check_finite(total, rate)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.config.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
        if penalty is not None:
            # After clipping: a far-away target must neither be slowed nor drown the loss.
            penalty.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.model)
        return total

    def _check_finite(self, loss: float, rate: float) -> None:
        if not math.isfinite(loss):
            raise Diverged(
                f"the loss became {loss} in epoch {self._at.epoch + 1}, step "
                f"{self._at.step + 1} of phase {self.phase!r} at learning rate {rate:.2g}; "
                "lower the learning rate or set gradient_clip=1"
            )

    def _batch(self) -> tuple[Tensor, Tensor]:
        start = self._at.step * self.config.batch_size
        index = self._epoch_order()[start : start + self.config.batch_size]
        images = augment(
            unit_interval(self.images[index]),
            self.config.augmentation,
            generator=self._generator("augmentation", self._at.epoch, self._at.step),
        )
        return images.contiguous(memory_format=torch.channels_last), self.labels[index]

    def _epoch_order(self) -> Tensor:
        """Indices of this epoch's examples, shuffled; drawn on the CPU for every device alike."""
        epoch = self._at.epoch
        if self._order is None or self._order[0] != epoch:
            source = generator(self.seed, self.phase, "order", epoch)
            order = torch.randperm(len(self.images), generator=source)
            self._order = epoch, order[: self.examples_per_epoch].to(self.images.device)
        return self._order[1]

    def _generator(self, *purpose: str | int) -> torch.Generator:
        return generator(self.seed, self.phase, *purpose, device=self.images.device)

    def _autocast(self) -> torch.autocast:
        enabled = self.config.precision == "bfloat16"
        return torch.autocast(self.images.device.type, dtype=torch.bfloat16, enabled=enabled)

    def _set_learning_rate(self) -> float:
        rate = self._learning_rate(self._at.epoch * self.steps_per_epoch + self._at.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _learning_rate(self, step: int) -> float:
        return learning_rate(
            self.config.schedule,
            base=self.config.learning_rate,
            step=step,
            total_steps=self.config.epochs * self.steps_per_epoch,
            warmup_steps=round(self.config.warmup_epochs * self.steps_per_epoch),
        )


def _frozen(teacher: nn.Module) -> nn.Module:
    """A copy in eval mode without gradients, as fast as it can be made."""
    return attack_target(copy.deepcopy(teacher).eval().requires_grad_(False))


def _sgd(model: nn.Module, config: TrainingConfig) -> torch.optim.SGD:
    """SGD with momentum; vectors (norm scales, biases) keep out of weight decay unless asked."""

    def decays(parameter: Tensor) -> bool:
        return config.weight_decay_on_norm or parameter.dim() > 1

    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if decays(p)], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if not decays(p)], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum)
