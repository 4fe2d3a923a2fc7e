"""Two networks on the same examples: what changed between them, and by how much."""

from __future__ import annotations

from typing import Any

from torch import nn

from cstar_core.evaluation.assessment import Assessment, Measurement, Subject, figure, told
from cstar_core.evaluation.attacks.transfer import transfer_correct
from cstar_core.evaluation.batches import Completed
from cstar_core.evaluation.drift import drift
from cstar_core.evaluation.reliability import transfer_flags
from cstar_core.evaluation.settings import BATCH, PGD
from cstar_core.evaluation.statistics import PairedComparison
from cstar_core.evaluation.watch import Meter

PAIRED = ("clean", "pgd", "autoattack")


def paired(before: Assessment, after: Assessment) -> dict[str, Any]:
    """The paired comparison of each headline figure (McNemar 1947)."""
    return {
        piece: PairedComparison.of(before.verdict(piece), after.verdict(piece)).to_json()
        for piece in PAIRED
    }


def drifted(subject: Subject, before: Assessment, after: Assessment) -> dict[str, Any]:
    """Section `drift`: what changed class by class, on the whole test split."""
    found = drift(
        before.predictions,
        after.predictions,
        subject.test.labels.cpu(),
        names=subject.class_names,
    )
    return found.to_json()


def transferred(
    source: nn.Module, subject: Subject, after: Assessment, ledger: Completed, meter: Meter
) -> Measurement:
    """What adversarial images crafted on `source` do to the network of `subject`.

    Flagged where they break what the white-box attacks, on the same examples, left robust.
    """
    known = len(ledger)
    verdict = transfer_correct(
        source,
        subject.watched(meter),
        subject.attacked.images,
        subject.attacked.labels,
        subject.settings.threat,
        settings=PGD,
        seed=subject.settings.attack_seed,
        batch_size=BATCH,
        completed=ledger,
        on_batch=meter,
    ).cpu()
    described = figure(f"transfer of {PGD.name}", verdict)
    if len(ledger) > known:
        meter.event("evaluation.finished", told(subject.name, described))
    white_box = after.verdict("worst_case")
    flags = transfer_flags(verdict[: len(white_box)], white_box)
    settings = {"settings": PGD.to_json(), "source": "before"}
    return Measurement(described | settings, verdict, tuple(flags))
