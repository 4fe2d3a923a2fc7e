"""What the loop tells its caller, and what it asks of a constraint such as ADMM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor


class Constraint(Protocol):
    """A term of the loss with a state of its own that moves once an epoch, such as ADMM's."""

    def penalty(self) -> Tensor:
        """Added to the loss of every batch."""
        ...

    def epoch_end(self, epoch: int, *, learning_rate: float) -> dict[str, float]:
        """Update the term's state; the metrics to show."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`."""
        ...


@dataclass(frozen=True)
class Step:
    """After an optimiser step; `loss` and `accuracy` (on attacked images) over the epoch so far.

    `step` counts from 1 to `steps_per_epoch`, `epoch` from 0.
    """

    epoch: int
    epochs: int
    step: int
    steps_per_epoch: int
    loss: float
    accuracy: float

    @property
    def fraction(self) -> float:
        """How much of the run is done, from 0 to 1."""
        return (self.epoch + self.step / self.steps_per_epoch) / self.epochs


@dataclass(frozen=True)
class EpochEnd:
    """After an epoch, its constraint update and its held-out scores."""

    epoch: int
    epochs: int
    metrics: dict[str, float]
