"""The drift gate: what compression changed, class by class, behind an accuracy that stayed.

Two networks can be equally accurate and err on different examples, and a loss can fall on one
class alone (Hooker et al. 2019, "What Do Compressed Deep Neural Networks Forget?").
`docs/drift.md` says what to do on a flag.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cstar_core.evaluation.notice import Notice
from cstar_core.evaluation.statistics import PairedComparison

SIGNIFICANCE = 0.05
# What a class must lose beyond the average class, as a share: less is seldom worth an alarm, and
# classes differ by a few points in how hard they are.
CLASS_MARGIN = 0.05
# Of equal predictions: see docs/drift.md for what sound compressions keep.
AGREEMENT_FLOOR = 0.8
MOST_CHANGED = 3


@dataclass(frozen=True)
class ClassDrift:
    """One class: correct before and after, of the same `paired.n` examples.

    `excess_loss` is its loss of accuracy minus that of the average class. `p_lost` is the exact
    McNemar p that it changed at all, `p_excess` the one-sided normal p that its loss is larger
    than the average; both corrected by Holm (1979) for the number of classes.
    """

    number: int
    name: str | None
    before: float
    after: float
    paired: PairedComparison
    excess_loss: float
    p_lost: float
    p_excess: float

    @property
    def shifted(self) -> bool:
        """Whether it lost, and significantly more than the average class."""
        lost = self.paired.difference < 0 and self.p_lost < SIGNIFICANCE
        return lost and self.excess_loss >= CLASS_MARGIN and self.p_excess < SIGNIFICANCE

    def to_json(self) -> dict[str, Any]:
        """The row of the report; its `mcnemar_p` is not corrected."""
        named = {"class": self.number, "name": self.name, "before": self.before}
        return named | {"after": self.after} | self.paired.to_json()


@dataclass(frozen=True)
class Drift:
    """Every class that has examples, and how often both networks say the same.

    `agreement_when_both_wrong` is None where they never are wrong together.
    """

    classes: tuple[ClassDrift, ...]
    agreement: float
    agreement_when_both_wrong: float | None
    n: int

    @property
    def most_changed(self) -> list[int]:
        """The numbers of the classes whose accuracy moved most, largest change first."""
        order = sorted(self.classes, key=lambda each: (-abs(each.paired.difference), each.number))
        return [each.number for each in order if each.paired.difference][:MOST_CHANGED]

    @property
    def flags(self) -> tuple[Notice, ...]:
        """`class_shift` for each class that lost too much, `disagreement` for the whole."""
        shifted = tuple(_class_shift(each) for each in self.classes if each.shifted)
        return shifted + (_disagreement(self) if self.agreement < AGREEMENT_FLOOR else ())

    @property
    def limits(self) -> list[str]:
        """What these figures cannot say."""
        fewest = min(each.paired.n for each in self.classes)
        return [
            f"The smallest class has {fewest} test examples: with 100, a class that loses "
            "10 points more than the others is found about one time in three, with 36 hardly ever.",
            "Only the test set is compared: what it does not contain, a subgroup or the trigger of "
            "a backdoor, cannot be seen here.",
        ]

    def to_json(self) -> dict[str, Any]:
        """Section `drift` of a report."""
        return {
            "agreement": self.agreement,
            "agreement_when_both_wrong": self.agreement_when_both_wrong,
            "n": self.n,
            "classes": [each.to_json() for each in self.classes],
            "most_changed": self.most_changed,
            "flags": [flag.to_json() for flag in self.flags],
            "limits": self.limits,
        }


def drift(
    before: Tensor, after: Tensor, labels: Tensor, *, names: Sequence[str] | None = None
) -> Drift:
    """Compare the predictions of two networks on the same examples, all (N,) int64.

    `names` are those of the classes. Raises ValueError if the lengths differ or N is 0.
    """
    if not before.shape == after.shape == labels.shape or labels.numel() == 0:
        raise ValueError("give one prediction before, one after and one label for each example")
    before, after, labels = (each.cpu() for each in (before, after, labels))
    both_wrong = (before != labels) & (after != labels)
    return Drift(
        classes=_classes(before == labels, after == labels, labels, names),
        agreement=_share(before == after),
        agreement_when_both_wrong=_share((before == after)[both_wrong])
        if both_wrong.any()
        else None,
        n=labels.numel(),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for their number, in the order given (Holm 1979, step down)."""
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def _classes(
    before: Tensor, after: Tensor, labels: Tensor, names: Sequence[str] | None
) -> tuple[ClassDrift, ...]:
    present = sorted(set(labels.tolist()))
    members = [labels == number for number in present]
    pairs = [PairedComparison.of(before[member], after[member]) for member in members]
    losses = torch.tensor([-pair.difference for pair in pairs], dtype=torch.float64)
    excess = losses - losses.mean()
    p_lost = holm([pair.p_value for pair in pairs])
    p_excess = holm(_excess_p_values(pairs, losses, excess))
    return tuple(
        ClassDrift(
            number=number,
            name=None if names is None else names[number],
            before=_share(before[member]),
            after=_share(after[member]),
            paired=pair,
            excess_loss=float(more),
            p_lost=changed,
            p_excess=beyond,
        )
        for number, member, pair, more, changed, beyond in zip(
            present, members, pairs, excess, p_lost, p_excess, strict=True
        )
    )


def _excess_p_values(
    pairs: Sequence[PairedComparison], losses: Tensor, excess: Tensor
) -> list[float]:
    """One-sided p of each class's excess over the mean of all K classes, by the normal law.

    The classes are independent: var(l_c - mean l) = (1 - 2 / K) var(l_c) + sum var(l) / K^2.
    """
    sizes = torch.tensor([pair.n for pair in pairs], dtype=torch.float64)
    discordant = torch.tensor([pair.only_before + pair.only_after for pair in pairs])
    variances = (discordant / sizes - losses**2) / sizes
    count = len(pairs)
    of_excess = variances * (1 - 2 / count) + variances.sum() / count**2
    return [
        0.5 * math.erfc(more / math.sqrt(2 * variance)) if variance > 0 else float(more <= 0)
        for more, variance in zip(excess.tolist(), of_excess.tolist(), strict=True)
    ]


def _share(truth: Tensor) -> float:
    return float(truth.double().mean())


def _class_shift(each: ClassDrift) -> Notice:
    name = f"class {each.number}" + (f" ({each.name})" if each.name else "")
    detail = (
        f"{name} went from {each.before:.1%} to {each.after:.1%} on {each.paired.n} examples, "
        f"{100 * each.excess_loss:.1f} points more than the average class lost "
        f"(p = {each.p_excess:.2g})"
    )
    return Notice("class_shift", detail)


def _disagreement(found: Drift) -> tuple[Notice]:
    detail = (
        f"the two networks give the same answer on {found.agreement:.1%} of {found.n} examples, "
        f"less than {AGREEMENT_FLOOR:.0%}"
    )
    return (Notice("disagreement", detail),)
