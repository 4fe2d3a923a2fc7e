"""Which examples are proven robust: the smallest margin over all images of the ball is positive."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cstar_core.attacks import ThreatModel, attack_mode
from cstar_core.evaluation.attacks.precision import float32_exact
from cstar_core.evaluation.batches import (
    Completed,
    Ledger,
    OnBatch,
    Record,
    batch_slices,
    unit_interval,
)
from cstar_core.evaluation.certified.intervals import Interval, around
from cstar_core.evaluation.certified.program import Program, read_program
from cstar_core.evaluation.certified.translation import Unbounded
from cstar_core.evaluation.statistics import Accuracy

# An attack's image may leave the ball by rounding in float32: the proof covers a little more.
BALL_SLACK = 1e-5
# Logits of the network in float32 differ from those of the proof by rounding.
LOGIT_SLACK = 1e-4
METHOD = (
    "interval bound propagation in float64, linear operators in a row merged, margins bounded "
    "through the last one; exact dual norm at the first under L2"
)


@dataclass(frozen=True)
class Certification:
    """Verdicts (N,) bool, or None and in `skipped` the reason why there can be none."""

    certified: Tensor | None
    skipped: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The figure of a report with its method; without a verdict its numbers are null."""
        described: dict[str, Any] = {"name": "certified", "method": METHOD, "skipped": self.skipped}
        if self.certified is None:
            return described | dict.fromkeys(("correct", "value", "n", "interval"))
        accuracy = Accuracy.of(self.certified)
        label = {"label": "screening"} if accuracy.screening else {}
        return described | {"correct": accuracy.correct} | accuracy.to_json() | label


class Invariant(NamedTuple):
    """Whether a relation between figures holds, and the counts behind it."""

    holds: bool
    detail: str


def certification(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    batch_size: int = 32,
    completed: Completed | None = None,
    on_batch: OnBatch | None = None,
) -> Certification:
    """`certified_correct`, or the operation for which no bounds are known."""
    try:
        verdicts = certified_correct(
            model,
            images,
            labels,
            threat,
            batch_size=batch_size,
            completed=completed,
            on_batch=on_batch,
        )
    except Unbounded as reason:
        return Certification(None, f"no bounds are known for {reason}")
    return Certification(verdicts)


@torch.no_grad()
def certified_correct(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    batch_size: int = 32,
    completed: Completed | None = None,
    on_batch: OnBatch | None = None,
) -> Tensor:
    """Whether each image is correct and proven so on the whole ball within [0, 1], (N,) bool.

    An upper bound of no attack, a lower bound of robust accuracy: False says nothing. The margin
    must exceed what rounding in float32 may move. Batches in `completed` are not run again;
    `on_batch` hears of each new one. Raises `Unbounded`.
    """
    prover = _Prover(model, read_program(model), threat)
    slices = list(batch_slices(len(images), batch_size))
    ledger = Ledger(len(slices), completed=completed, on_batch=on_batch)
    verdicts: list[bool] = []
    for index, where in enumerate(slices):
        run = functools.partial(prover.record, images[where], labels[where])
        verdicts += ledger.recall_or(str(index), run)["correct"]
    return torch.tensor(verdicts, dtype=torch.bool, device=labels.device)


@torch.no_grad()
def logit_bounds(
    model: nn.Module, images: Tensor, threat: ThreatModel, *, merge: bool = True
) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds of all logits on the ball, both (N, K) float64 on the CPU.

    `merge` False goes through every factor of a chain. Raises `Unbounded`.
    """
    program = read_program(model, merge=merge)
    bounds = _logits(program, around(unit_interval(images).cpu().double(), threat))
    return bounds.lower, bounds.upper


def invariant(certified: Tensor, attacked: Tensor, clean: Tensor) -> Invariant:
    """Whether certified <= attacked <= clean for each example, all (N,) bool of the same images."""
    certified, attacked, clean = (each.cpu() for each in (certified, attacked, clean))
    broken = int((certified & ~attacked).sum())
    unearned = int((attacked & ~clean).sum())
    detail = (
        f"of {clean.numel()} examples {int(certified.sum())} certified, {int(attacked.sum())} "
        f"robust to the attacks, {int(clean.sum())} correct; {broken} certified but broken, "
        f"{unearned} robust but not correct"
    )
    return Invariant(broken == unearned == 0, detail)


@dataclass(frozen=True)
class _Prover:
    """A network and its program, which take images in [0, 1]."""

    model: nn.Module
    program: Program
    threat: ThreatModel

    def record(self, images: Tensor, labels: Tensor) -> Record:
        """Which examples of one batch are correct and stay so."""
        images = unit_interval(images)
        with float32_exact(self.model), attack_mode(self.model):
            logits = self.model(images)
        threat = ThreatModel(self.threat.norm, _widened(self.threat))
        proven = smallest_margins(self.program, around(images.cpu().double(), threat), labels.cpu())
        slack = LOGIT_SLACK * logits.abs().amax(1).cpu().double().clamp_min(1)
        certified = (logits.argmax(1) == labels).cpu() & (proven > slack)
        return {"correct": certified.tolist(), "flags": []}


def smallest_margins(program: Program, images: Interval, labels: Tensor) -> Tensor:
    """Lower bounds of min over j of z_y - z_j for all images within `images`, (N,) float64.

    The difference of two logits is bounded as one output of the last linear operator, not as the
    difference of two bounds (Gowal et al. 2018, section 3).
    """
    before, last = program.split()
    if last is None:
        logits = _logits(program, images)
        lower = logits.lower.gather(1, labels[:, None]) - logits.upper
    else:
        values = before.bound(images)
        lower = values.lower.new_empty(len(labels), len(last.bias))
        for label in sorted(set(labels.tolist())):
            rows = labels == label
            lower[rows] = last.gaps_to(label).bound(values.take(rows)).lower
    return lower.scatter(1, labels[:, None], float("inf")).amin(1)


def _logits(program: Program, images: Interval) -> Interval:
    logits = program.bound(images)
    if logits.lower.dim() != 2 or len(logits.lower) != len(images.lower):
        raise Unbounded(f"an output of shape {tuple(logits.lower.shape)}")
    return logits


def _widened(threat: ThreatModel) -> float:
    wider = threat.epsilon * (1 + BALL_SLACK) + BALL_SLACK
    return min(1.0, wider) if threat.norm == "linf" else wider
