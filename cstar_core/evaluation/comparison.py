"""Two networks on the same examples: what changed between them, and by how much."""

from __future__ import annotations

from typing import Any

from cstar_core.evaluation.assessment import Assessment, Subject
from cstar_core.evaluation.drift import drift
from cstar_core.evaluation.statistics import PairedComparison

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
