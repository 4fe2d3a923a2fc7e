"""Robust accuracy over epsilon: a trustworthy curve falls, and ends at chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from cstar_core.attacks import ThreatModel
from cstar_core.evaluation.attacks.robustness import PgdSettings, class_count, pgd_correct
from cstar_core.evaluation.batches import BatchDone, Completed, OnBatch
from cstar_core.evaluation.statistics import Accuracy

# Multiples of the target epsilon: from clean to where most honest models are broken.
CURVE_MULTIPLES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0, 8.0)
# An accuracy at most this far above one over the number of classes counts as chance.
CHANCE_SLACK = 0.1


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
    """Accuracy under PGD for each epsilon in `threat`'s norm, all on the same examples.

    Each epsilon is attacked anew on all examples. An example broken at one is broken at every
    larger one, and need not be attacked again; but then accuracy could never rise with epsilon, and
    the rise of an attack that fails is a sign worth more than the time.

    Without `epsilons`, those of `curve_epsilons`; from there on epsilon is doubled while accuracy
    is above chance, up to where every ball holds the one grey image and none can be.
    """
    ledgers = {} if completed is None else completed
    planned = curve_epsilons(threat) if epsilons is None else list(epsilons)
    points = 0

    def told(done: BatchDone) -> None:
        """Count the batches of all the planned points, not of one."""
        if on_batch is not None:
            before, total = points * done.total, len(planned) * done.total
            on_batch(replace(done, done=before + done.done, total=total))

    def point(epsilon: float) -> CurvePoint:
        nonlocal points
        verdict = pgd_correct(
            model,
            images,
            labels,
            ThreatModel(threat.norm, epsilon),
            settings=settings,
            seed=seed,
            batch_size=batch_size,
            completed=ledgers.setdefault(repr(epsilon), {}),
            on_batch=told,
        )
        points += 1
        return CurvePoint(epsilon, Accuracy.of(verdict))

    curve = [point(epsilon) for epsilon in planned]
    if epsilons is not None:
        return curve
    chance, grey = 1 / class_count(model, images) + CHANCE_SLACK, _grey_radius(threat, images)
    while curve[-1].accuracy.interval[0] > chance and 0 < curve[-1].epsilon < grey:
        curve.append(point(min(grey, 2 * curve[-1].epsilon)))
    return curve


def _grey_radius(threat: ThreatModel, images: Tensor) -> float:
    """The epsilon from which every image may be turned into the grey one, all pixels 0.5."""
    pixels = images[0].numel()
    return 0.5 if threat.norm == "linf" else 0.5 * float(pixels) ** 0.5
