"""Signs that a robustness evaluation cannot be trusted, as data; any of them spoils the verdict.

After Carlini et al. (2019), "On Evaluating Adversarial Robustness", section 4, the warnings of
Croce and Hein (2020), and the active test of Zimmermann et al. (2022).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from cstar_core.attacks import AttackLoss, attack_mode, input_gradient
from cstar_core.evaluation.attacks.curve import CHANCE_SLACK, CurvePoint
from cstar_core.evaluation.attacks.planted import PlantedResult
from cstar_core.evaluation.attacks.precision import float32_exact
from cstar_core.evaluation.batches import batch_slices, unit_interval
from cstar_core.evaluation.certified import Invariant

Code = Literal[
    "not_deterministic",
    "softmax_output",
    "zero_gradients",
    "square_stronger",
    "larger_epsilon_not_stronger",
    "not_broken_at_large_epsilon",
    "more_steps_much_stronger",
    "autoattack_weaker_than_pgd",
    "transfer_stronger",
    "planted_missed",
    "dynamic_model",
    "library_warning",
    "invariant_broken",
    "not_finite",
]

# What each sign means for whoever reads the verdict; the figures follow in brackets.
_WORDS: dict[Code, str] = {
    "not_deterministic": (
        "The model answers differently when asked the same thing twice, so that an attack may "
        "miss by bad luck what another try would find"
    ),
    "softmax_output": (
        "The model returns probabilities instead of logits, whose tiny differences attacks cannot "
        "follow"
    ),
    "zero_gradients": (
        "The model gives attacks no direction to follow, which hides weaknesses without removing "
        "them"
    ),
    "square_stronger": (
        "An attack that only guesses broke images which those that see inside the model could "
        "not, so these were misled"
    ),
    "larger_epsilon_not_stronger": (
        "A larger allowed change breaks fewer images, which is impossible for an attack that works"
    ),
    "not_broken_at_large_epsilon": (
        "Even changes large enough to erase an image do not break the model, so the attack does "
        "not work on it"
    ),
    "more_steps_much_stronger": (
        "Attacking for longer breaks many more images, so the attack was stopped too early and "
        "the true robustness is lower"
    ),
    "autoattack_weaker_than_pgd": (
        "A simple attack breaks images that the strongest suite left unbroken, so the suite does "
        "not work on this model"
    ),
    "transfer_stronger": (
        "Images crafted on another model break this one where attacks on itself failed, so these "
        "were misled"
    ),
    "planted_missed": (
        "The attack missed weak spots that were planted in this very model for it to find, so it "
        "may miss real ones"
    ),
    "dynamic_model": (
        "The model computes gradients while it answers, so that attacks face another model than "
        "users do"
    ),
    "library_warning": "The attack library gave a warning that this service does not know",
    "not_finite": (
        "The model answers some images with numbers that are no numbers, which no attack can raise "
        "or lower"
    ),
    "invariant_broken": (
        "An image that was proven safe was broken, or a misclassified one counted as robust, so "
        "one of the two figures is wrong"
    ),
}

# What a code of the library's own checks says in a report (autoattack_library).
_LIBRARY_DETAILS: dict[Code, str] = {
    "not_deterministic": "AutoAttack's own check: repeated outputs differ",
    "softmax_output": "AutoAttack's own check: outputs are non-negative and sum to one",
    "dynamic_model": "AutoAttack's own check: the forward pass calls autograd",
}

# Logits of the same image in the same model may differ by rounding alone.
_LOGIT_TOLERANCE = 1e-4
# Shares of the examples: what noise and the rest of a suite may still explain. One example alone
# never is a sign: it is what a tie, or a saturated image, looks like.
_SQUARE_SHARE, _STEPS_SHARE, _CURVE_SHARE, _FLAT_SHARE = 0.002, 0.05, 0.01, 0.01
_PGD_SHARE, _TRANSFER_SHARE = 0.01, 0.02
# Float32 makes the cross-entropy of a very confident answer flat; only many such are a sign.
_SATURATED_SHARE = 0.1
_BATCH = 128


@dataclass(frozen=True)
class Flag:
    """One sign, with the figures behind it."""

    code: Code
    detail: str

    def to_json(self) -> dict[str, str]:
        """The flag as a report lists it."""
        return asdict(self)


@dataclass(frozen=True)
class Reliability:
    """Whether the figures can be believed, and if not, why: one sentence for each kind of sign."""

    reliable: bool
    reasons: list[str]

    def to_json(self) -> dict[str, Any]:
        """{"reliable", "reasons"}."""
        return asdict(self)


def verdict(flags: Iterable[Flag]) -> Reliability:
    """Reliable without any flag; else the reasons in plain words, figures in brackets."""
    details: dict[Code, list[str]] = {}
    for flag in flags:
        known = details.setdefault(flag.code, [])
        if flag.detail not in known:
            known.append(flag.detail)
    reasons = [f"{_WORDS[code]} ({'; '.join(known)})." for code, known in details.items()]
    return Reliability(reliable=not reasons, reasons=reasons)


def model_flags(model: nn.Module, images: Tensor, labels: Tensor) -> list[Flag]:
    """Flags of the model itself, on images (N, C, H, W) with labels (N,)."""
    sample = unit_interval(images[:_BATCH])
    with float32_exact(model), attack_mode(model), torch.no_grad():
        logits = model(sample)
        again = [model(sample) for _ in range(2)]
    spread = max((logits - other).abs().max().item() for other in again)
    flags = []
    if not bool(logits.isfinite().all()):
        bad = int((~logits.isfinite()).any(1).sum())
        flags.append(Flag("not_finite", f"{bad} of {len(sample)} images"))
    if spread > _LOGIT_TOLERANCE * max(1.0, logits.abs().max().item()):
        flags.append(Flag("not_deterministic", f"logits of one image differ by {spread:.2g}"))
    if _is_probability(logits):
        flags.append(Flag("softmax_output", "outputs are probabilities; attacks need logits"))
    return flags + _gradient_flags(model, images, labels)


def _gradient_flags(model: nn.Module, images: Tensor, labels: Tensor) -> list[Flag]:
    n = len(images)
    flat, saturated = (_flat(model, images, labels, loss) for loss in ("margin", "ce"))
    if flat > _allowed(_FLAT_SHARE, n):
        return [Flag("zero_gradients", f"{flat} of {n} images have no input gradient")]
    if saturated > _allowed(_SATURATED_SHARE, n):
        detail = f"the cross-entropy that PGD raises is flat at {saturated} of {n} images"
        return [Flag("zero_gradients", detail)]
    return []


def _flat(model: nn.Module, images: Tensor, labels: Tensor, loss: AttackLoss) -> int:
    """At how many images the gradient of `loss` is exactly zero."""
    flat = 0
    with float32_exact(model), attack_mode(model):
        for where in batch_slices(len(images), _BATCH):
            batch = unit_interval(images[where])
            _, gradient = input_gradient(model, batch, labels[where], loss=loss)
            flat += int((gradient.flatten(1).abs().sum(1) == 0).sum())
    return flat


def library_flags(codes: Iterable[str]) -> list[Flag]:
    """The warnings of AutoAttack's library, `AttackResult.flags`, as flags with a detail.

    Without that of zero gradients, which a single image raises: `model_flags` counts them.
    """
    known = {code: code for code in get_args(Code)}
    codes = [name for name in codes if name != "zero_gradients"]
    return [
        Flag(code, _LIBRARY_DETAILS.get(code, "a warning of AutoAttack's library"))
        for code in (known.get(name, "library_warning") for name in codes)
    ]


def square_flags(broken_by: Mapping[str, int], n: int) -> list[Flag]:
    """Whether the gradient-free Square attack broke what the white-box attacks could not."""
    broken = broken_by.get("square", 0)
    if broken <= _allowed(_SQUARE_SHARE, n):
        return []
    return [Flag("square_stronger", f"Square broke {broken} of {n} images after all the others")]


def steps_flags(few: Tensor, many: Tensor) -> list[Flag]:
    """Whether an attack of many steps, (N,) verdicts, is much stronger than one of few steps."""
    lost = int((few & ~many).sum())
    if lost <= _allowed(_STEPS_SHARE, len(few)):
        return []
    return [Flag("more_steps_much_stronger", f"more steps broke {lost} more of {len(few)} images")]


def consistency_flags(autoattack: Tensor, pgd: Tensor) -> list[Flag]:
    """Whether PGD, (N,) verdicts on the same images, breaks what AutoAttack left robust."""
    missed = int((autoattack & ~pgd).sum())
    if missed <= _allowed(_PGD_SHARE, len(pgd)):
        return []
    detail = f"PGD broke {missed} of the {int(autoattack.sum())} images AutoAttack left robust"
    return [Flag("autoattack_weaker_than_pgd", detail)]


def transfer_flags(transfer: Tensor, white_box: Tensor) -> list[Flag]:
    """Whether transfer, (N,) verdicts, breaks what all white-box attacks left robust."""
    robust = int(white_box.sum())
    broken = int((white_box & ~transfer).sum())
    if broken <= _allowed(_TRANSFER_SHARE, robust):
        return []
    detail = f"transfer broke {broken} of the {robust} images that the white-box attacks left"
    return [Flag("transfer_stronger", detail)]


def planted_flags(result: PlantedResult) -> list[Flag]:
    """Whether the attack missed planted examples; a test that was skipped is no sign."""
    if result.passed or result.skipped is not None:
        return []
    detail = f"{result.found} of {result.n} found, {result.required:.0%} required"
    return [Flag("planted_missed", detail)]


def invariant_flags(relation: Invariant) -> list[Flag]:
    """Whether certified <= attacked <= clean fails for any example."""
    return [] if relation.holds else [Flag("invariant_broken", relation.detail)]


def curve_flags(curve: Sequence[CurvePoint], *, classes: int) -> list[Flag]:
    """Whether accuracy rises with epsilon, or stays above chance at the largest one."""
    flags = []
    for smaller, larger in pairwise(curve):
        risen = larger.accuracy.value - smaller.accuracy.value
        n = min(smaller.accuracy.n, larger.accuracy.n)
        if risen * n > _allowed(_CURVE_SHARE, n) + 1e-6:
            detail = (
                f"accuracy rises from {smaller.accuracy.value:.3f} at {smaller.epsilon:.4g} to "
                f"{larger.accuracy.value:.3f} at {larger.epsilon:.4g}"
            )
            flags.append(Flag("larger_epsilon_not_stronger", detail))
    if curve and curve[-1].accuracy.interval[0] > 1 / classes + CHANCE_SLACK:
        last = curve[-1]
        detail = f"accuracy is still {last.accuracy.value:.3f} at epsilon {last.epsilon:.4g}"
        flags.append(Flag("not_broken_at_large_epsilon", detail))
    return flags


def _allowed(share: float, n: int) -> float:
    """How many of n examples are no sign yet."""
    return max(1.0, share * n)


def _is_probability(outputs: Tensor) -> bool:
    sums_to_one = bool(torch.allclose(outputs.sum(1), torch.ones_like(outputs[:, 0]), atol=1e-4))
    return sums_to_one and bool((outputs >= 0).all())
