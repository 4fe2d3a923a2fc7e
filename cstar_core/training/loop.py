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
from cstar_core.folding import attack_target
from cstar_core.training.config import TrainingConfig
from cstar_core.training.crafting import Crafter
from cstar_core.training.descent import Descent
from cstar_core.training.distributed import World
from cstar_core.training.ema import WeightAverage
from cstar_core.training.execution import Execution
from cstar_core.training.objectives import AttackedBatch, crafting_loss, make_objective
from cstar_core.training.progress import Constraint, EpochEnd, Step
from cstar_core.training.randomness import generator, global_generator
from cstar_core.training.sampling import Sampler
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

    In a process of torch's default group it is one of several that train together: every process
    makes the same trainer and runs it alike (see `distributed`). What an epoch's end decides is
    the leader's, and all go on from its state.

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
        self.model, self.config, self.seed, self.phase = model, config, seed, phase
        self.constraint, self.selection = constraint, selection
        self.average = None if config.ema is None else WeightAverage(model, config.ema)
        self.sampler = Sampler(images, labels, config, seed=seed, phase=phase)
        self._world = World.current()
        self.execution = self._world.execution(Execution.of(config, images.device))
        self._share = self._world.share(min(config.batch_size, self.sampler.examples_per_epoch))
        self._craft = Crafter(model, threat, loss=crafting_loss(config), execution=self.execution)
        objective = make_objective(config, None if teacher is None else _frozen(teacher))
        self._descent = Descent(
            model,
            config,
            objective=self._world.objective(objective, model, self._share),
            execution=self.execution,
            constraint=constraint,
        )
        self._device = images.device
        self._at = _Position()

    @property
    def effective(self) -> dict[str, Any]:
        """How the run is executed in fact, as plain data: device, precision, compiled, notes."""
        return self.execution.to_json()

    @property
    def optimizer(self) -> torch.optim.SGD:
        """The optimiser, one parameter group per weight decay."""
        return self._descent.optimizer

    @property
    def evaluated_model(self) -> nn.Module:
        """The model to score and keep: the moving average where there is one."""
        return self.model if self.average is None else self.average.model

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in an epoch; one smaller batch if there is not a single full one."""
        return self.sampler.steps_per_epoch

    def run(self) -> Iterator[Step | EpochEnd]:
        """Train from where the state stands to the end, yielding after every step and epoch."""
        self._follow_leader()
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
        rate = self._learning_rate(at.epoch * self.steps_per_epoch + at.step)
        batch = self._attacked_batch()
        purpose, perturbed = self._purpose("layers"), self.config.awp_in(at.epoch)
        with global_generator(*purpose, device=self._device), self._share.draws():
            loss, logits = self._descent.gradients(batch, perturbed=perturbed)
        correct = int((logits.argmax(1) == batch.labels).sum())
        loss, correct_of_all = self._world.total(loss / self._world.size, correct)
        self._check_finite(loss, rate)
        self._descent.step(rate)
        if self.average is not None:
            self.average.update(self.model)
        at.loss += loss
        at.step += 1
        at.correct += int(correct_of_all)
        at.seen += self._share.count
        return Step(
            epoch=at.epoch,
            epochs=self.config.epochs,
            step=at.step,
            steps_per_epoch=self.steps_per_epoch,
            loss=at.loss / at.step,
            accuracy=at.correct / at.seen,
        )

    def _attacked_batch(self) -> AttackedBatch:
        images, labels = (
            whole[self._share.rows]
            for whole in self.sampler.batch(epoch=self._at.epoch, step=self._at.step)
        )
        with self._share.draws():
            adversarial = self._craft(
                self.config.attack_in(self._at.epoch),
                images,
                labels,
                generator=generator(*self._purpose("attack"), device=self._device),
            )
        return AttackedBatch(images, adversarial, labels)

    def _end_epoch(self) -> EpochEnd:
        epoch = self._at.epoch
        metrics = self._world.received(self._epoch_metrics() if self._world.leads else {})
        self._at = _Position(epoch=epoch + 1)
        self._follow_leader()
        return EpochEnd(epoch=epoch, epochs=self.config.epochs, metrics=metrics)

    def _follow_leader(self) -> None:
        """Go on from the leader's state: what it has chosen, and no rounding of our own."""
        state = self._world.received(self.state_dict())
        if not self._world.leads:
            self.load_state_dict(state)

    def _epoch_metrics(self) -> dict[str, float]:
        """Let the constraint and the selection see the epoch; its figures."""
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
        return metrics

    def _check_finite(self, loss: float, rate: float) -> None:
        if not math.isfinite(loss):
            raise Diverged(
                f"the loss became {loss} in epoch {self._at.epoch + 1}, step "
                f"{self._at.step + 1} of phase {self.phase!r} at learning rate {rate:.2g}; "
                "lower the learning rate or set gradient_clip=1"
            )

    def _purpose(self, name: str) -> tuple[int, str, str, int, int]:
        """The names from which this step's random numbers for `name` are derived."""
        return self.seed, self.phase, name, self._at.epoch, self._at.step

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
