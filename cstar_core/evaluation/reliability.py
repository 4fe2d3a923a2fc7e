"""Signs that a robustness evaluation cannot be trusted, as data; any of them spoils the verdict.

After Carlini et al. (2019), "On Evaluating Adversarial Robustness", section 4, and the warnings of
Croce and Hein (2020).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from cstar_core.attacks import attack_mode, input_gradient
from cstar_core.evaluation.batches import unit_interval
from cstar_core.evaluation.curve import CurvePoint

Code = Literal[
    "not_deterministic",
    "softmax_output",
    "zero_gradients",
    "square_stronger",
    "larger_epsilon_not_stronger",
    "not_broken_at_large_epsilon",
    "more_steps_much_stronger",
]

# Logits of the same image in the same model may differ by rounding alone.
_LOGIT_TOLERANCE = 1e-4
# Shares of the examples: what noise and the rest of a suite may still explain.
_SQUARE_SHARE, _STEPS_SHARE, _CURVE_SHARE = 0.002, 0.05, 0.01
# More than this above chance at the largest epsilon of a curve says that the attack fails.
_ABOVE_CHANCE = 0.1


@dataclass(frozen=True)
class Flag:
    """One sign, with the figures behind it."""

    code: Code
    detail: str

    def to_json(self) -> dict[str, str]:
        """The flag as a report lists it."""
        return asdict(self)


def model_flags(model: nn.Module, images: Tensor, labels: Tensor) -> list[Flag]:
    """Flags of the model itself, from one batch of images (N, C, H, W)."""
    with attack_mode(model):
        logits, gradient = input_gradient(model, unit_interval(images), labels, loss="margin")
        again = [input_gradient(model, unit_interval(images), labels)[0] for _ in range(2)]
    spread = max((logits - other).abs().max().item() for other in again)
    vanished = int((gradient.flatten(1).abs().sum(1) == 0).sum())
    flags = []
    if spread > _LOGIT_TOLERANCE * max(1.0, logits.abs().max().item()):
        flags.append(Flag("not_deterministic", f"logits of one image differ by {spread:.2g}"))
    if _is_probability(logits):
        flags.append(Flag("softmax_output", "outputs are probabilities; attacks need logits"))
    if vanished:
        flags.append(
            Flag("zero_gradients", f"{vanished} of {len(images)} images have no input gradient")
        )
    return flags


def square_flags(broken_by: Mapping[str, int], n: int) -> list[Flag]:
    """Whether the gradient-free Square attack broke what the white-box attacks could not."""
    broken = broken_by.get("square", 0)
    if broken <= _SQUARE_SHARE * n:
        return []
    return [Flag("square_stronger", f"Square broke {broken} of {n} images after all the others")]


def steps_flags(few: Tensor, many: Tensor) -> list[Flag]:
    """Whether an attack of many steps, (N,) verdicts, is much stronger than one of few steps."""
    lost = int((few & ~many).sum())
    if lost <= _STEPS_SHARE * len(few):
        return []
    return [Flag("more_steps_much_stronger", f"more steps broke {lost} more of {len(few)} images")]


def curve_flags(curve: Sequence[CurvePoint], *, classes: int) -> list[Flag]:
    """Whether accuracy rises with epsilon, or stays above chance at the largest one."""
    flags = []
    for smaller, larger in pairwise(curve):
        if larger.accuracy.value > smaller.accuracy.value + _CURVE_SHARE:
            detail = (
                f"accuracy rises from {smaller.accuracy.value:.3f} at {smaller.epsilon:.4g} to "
                f"{larger.accuracy.value:.3f} at {larger.epsilon:.4g}"
            )
            flags.append(Flag("larger_epsilon_not_stronger", detail))
    if curve and curve[-1].accuracy.interval[0] > 1 / classes + _ABOVE_CHANCE:
        last = curve[-1]
        detail = f"accuracy is still {last.accuracy.value:.3f} at epsilon {last.epsilon:.4g}"
        flags.append(Flag("not_broken_at_large_epsilon", detail))
    return flags


def _is_probability(outputs: Tensor) -> bool:
    sums_to_one = bool(torch.allclose(outputs.sum(1), torch.ones_like(outputs[:, 0]), atol=1e-4))
    return sums_to_one and bool((outputs >= 0).all())
