"""What an attack found: a verdict per example, and what a report must say of how it was found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cstar_core.evaluation.statistics import Accuracy


@dataclass(frozen=True)
class AttackResult:
    """Verdicts of an attack, (N,) bool: `robust` under it, `clean` without it.

    `broken_by` counts the examples that each part of the attack broke first; `flags` are codes of
    warnings; `settings` are all that is needed to repeat it.
    """

    robust: Tensor
    clean: Tensor
    broken_by: dict[str, int]
    flags: tuple[str, ...]
    settings: dict[str, Any]

    @property
    def accuracy(self) -> Accuracy:
        """Robust accuracy over all examples, misclassified ones included."""
        return Accuracy.of(self.robust)

    def to_json(self) -> dict[str, Any]:
        """Accuracy, examples broken by each attack, flags and settings."""
        return self.accuracy.to_json() | {
            "clean": Accuracy.of(self.clean).to_json(),
            "broken_by": self.broken_by,
            "flags": list(self.flags),
            "settings": self.settings,
        }
