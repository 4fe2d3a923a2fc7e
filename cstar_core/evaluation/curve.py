"""Robust accuracy over epsilon: a trustworthy curve falls, and ends at chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from cstar_core.attacks import ThreatModel
from cstar_core.evaluation.batches import Completed, OnBatch
from cstar_core.evaluation.robustness import PgdSettings, pgd_correct
from cstar_core.evaluation.statistics import Accuracy

# Multiples of the target epsilon: from clean to where any honest model is broken.
CURVE_MULTIPLES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class CurvePoint:
    """Accuracy under an attack of size `epsilon`."""

    epsilon: float
    accuracy: Accuracy

    def to_json(self) -> dict[str, Any]:
        """The point as a report shows it."""
        return {"epsilon": self.epsilon} | self.accuracy.to_json()


def curve_epsilons(threat: ThreatModel) -> list[float]:
    """From 0 to well past the target; an L-inf epsilon beyond 1 would change nothing more."""
    largest = 1.0 if threat.norm == "linf" else float("inf")
    return sorted({min(largest, multiple * threat.epsilon) for multiple in CURVE_MULTIPLES})


def epsilon_curve(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    epsilons: Sequence[float] | None = None,
    settings: PgdSettings | None = None,
    seed: int,
    batch_size: int = 256,
    completed: dict[str, Completed] | None = None,
    on_batch: OnBatch | None = None,
) -> list[CurvePoint]:
    """Accuracy under PGD for each epsilon in `threat`'s norm, all on the same examples."""
    ledgers = {} if completed is None else completed
    return [
        CurvePoint(
            epsilon,
            Accuracy.of(
                pgd_correct(
                    model,
                    images,
                    labels,
                    ThreatModel(threat.norm, epsilon),
                    settings=settings,
                    seed=seed,
                    batch_size=batch_size,
                    completed=ledgers.setdefault(repr(epsilon), {}),
                    on_batch=on_batch,
                )
            ),
        )
        for epsilon in (curve_epsilons(threat) if epsilons is None else epsilons)
    ]
