"""One optimiser step: the gradient of the loss at the worst weights, then that of the penalty."""

from __future__ import annotations

from torch import Tensor, nn

from cstar_core.training.config import TrainingConfig
from cstar_core.training.execution import Execution
from cstar_core.training.objectives import AttackedBatch, Loss
from cstar_core.training.optimizers import sgd
from cstar_core.training.perturbation import WeightPerturbation
from cstar_core.training.progress import Constraint


class Descent:
    """Moves `model` against the gradient of `objective`(batch) + `constraint`.penalty()."""

    def __init__(
        self,
        model: nn.Module,
        config: TrainingConfig,
        *,
        objective: Loss,
        execution: Execution,
        constraint: Constraint | None,
    ) -> None:
        self.model, self.config, self.objective = model, config, objective
        self.execution, self.constraint = execution, constraint
        self.optimizer = sgd(model, config)
        self._network = execution.compiled_network(model)
        gamma = None if config.awp is None else config.awp.gamma
        self._perturbation = None if gamma is None else WeightPerturbation(model, gamma=gamma)

    def gradients(self, batch: AttackedBatch, *, perturbed: bool) -> tuple[float, Tensor]:
        """Set all gradients, changing no weight; the loss, penalty included, and the logits.

        With `perturbed` the loss is taken at adversarially perturbed weights; the penalty never is.
        """
        self.model.train()
        loss, logits = self._loss_gradient(batch, perturbed=perturbed)
        if self.config.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
        if self.constraint is None:
            return loss.item(), logits
        # After clipping: a far-away target must neither be slowed nor drown the loss.
        penalty = self.constraint.penalty()
        penalty.backward()  # type: ignore[no-untyped-call]
        return loss.item() + penalty.item(), logits

    def step(self, learning_rate: float) -> None:
        """Take the step that `gradients` has prepared."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()

    def _loss_gradient(self, batch: AttackedBatch, *, perturbed: bool) -> tuple[Tensor, Tensor]:
        if perturbed and self._perturbation is not None:
            with self._perturbation.applied(lambda: self._loss(batch)[0]):
                return self._backward(batch)
        self.optimizer.zero_grad(set_to_none=True)
        return self._backward(batch)

    def _backward(self, batch: AttackedBatch) -> tuple[Tensor, Tensor]:
        loss, logits = self._loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach(), logits.detach()

    def _loss(self, batch: AttackedBatch) -> tuple[Tensor, Tensor]:
        with self.execution.autocast():
            return self.objective(self._network, batch)
