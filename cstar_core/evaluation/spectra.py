"""A screen of uploaded weights, without data, for the marks a planted backdoor may leave.

A backdoor ties a trigger to its target class by a strong path: a channel that amplifies what others
do not (Zheng et al., "Data-free Backdoor Removal based on Channel Lipschitzness", ECCV 2022), and
in the classifier a row of the target class unlike the others (Fields et al., "Trojan Signatures in
DNN Weights", ICCV Workshops 2021). It misses most backdoors, and says so:
`docs/decisions/0006-backdoor-screen.md` has what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cstar_core.evaluation.notice import Notice
from cstar_core.folding import UNTRACEABLE, FoldedCopy

# Honest networks were measured to reach 25 in a layer; see the decision.
CHANNEL_SCORE = 50.0
# Student's t with K - 2 degrees of freedom: one row of K = 10 exceeds it once in a hundred
# networks, of a thousand less often.
CLASS_SCORE = 4.5
# Fewer channels have no spread to speak of.
FEWEST_CHANNELS = 8
# Of the median: among equal channels a trifle must not look like an outlier.
_SMALLEST_SPREAD = 0.01
# Of the largest: a pruned channel is no channel.
_DEAD = 1e-4
LIMITS = (
    "The screen sees weights alone, and misses most backdoors: of those planted for its "
    "calibration it flagged one in four when a tenth of the training data was poisoned, and none "
    "when 2 % were, though these worked as well. No flag is no evidence.",
    "A flag is a reason to ask where the weights come from, not proof: a class with twice as many "
    "training images as the others left the same mark in more than half of the honest networks.",
)


@dataclass(frozen=True)
class LayerSpectrum:
    """A layer's singular values, and the output channel that stands out most.

    `channel_score` says by how many standard deviations: of the channel's Lipschitz bound by the
    layer's median and MAD, or, in the classifier, of the row's distance from the mean row by the
    other rows. None for a layer of fewer than `FEWEST_CHANNELS`.
    """

    name: str
    top_singular_value: float
    median_singular_value: float
    largest_channel: int
    channel_score: float | None

    def to_json(self) -> dict[str, Any]:
        """One row of the report."""
        return asdict(self)


@dataclass(frozen=True)
class Screen:
    """All convolutions and linear layers in order, and what stands out."""

    layers: tuple[LayerSpectrum, ...]
    flags: tuple[Notice, ...]

    def to_json(self) -> dict[str, Any]:
        """Section `spectra` of a report."""
        return {
            "layers": [layer.to_json() for layer in self.layers],
            "flags": [flag.to_json() for flag in self.flags],
            "limits": list(LIMITS),
        }


@torch.no_grad()
def screen(network: nn.Module) -> Screen:
    """The spectra of `network`, batch norms folded in, and a flag for each layer that stands out.

    A network that cannot be traced is read without its batch norms.
    """
    weights = dict(_weights(network))
    classifier = _classifier(weights)
    layers, flags = [], []
    for name, weight in weights.items():
        is_classifier = name == classifier
        layer = _spectrum(name, weight, class_deviations if is_classifier else channel_deviations)
        layers.append(layer)
        limit = CLASS_SCORE if is_classifier else CHANNEL_SCORE
        if layer.channel_score is not None and layer.channel_score > limit:
            flags.append(_flag(layer, limit, "class" if is_classifier else "channel"))
    return Screen(tuple(layers), tuple(flags))


def channel_lipschitz(weight: Tensor) -> Tensor:
    """Upper bound of what each output may move, (O,), for a weight (O, I, ...).

    The spectral norm of the channel's (I, kh kw) matrix; the Euclidean norm of a linear row.
    """
    kernels = weight.reshape(*weight.shape[:2], -1)
    grams = kernels.transpose(1, 2) @ kernels  # (O, kh kw, kh kw)
    largest: Tensor = torch.linalg.eigvalsh(grams)[:, -1]
    return largest.clamp_min(0).sqrt()


def channel_deviations(weight: Tensor) -> Tensor:
    """Distance of each channel's Lipschitz bound from their median, in units of 1.4826 MAD, (O,).

    Channels of zeros do not count for the median.
    """
    bounds = channel_lipschitz(weight)
    alive = bounds[bounds > _DEAD * bounds.amax()]
    if not len(alive):
        return torch.zeros_like(bounds)
    median = alive.median()
    spread = 1.4826 * (alive - median).abs().median()
    smallest = (_SMALLEST_SPREAD * median).clamp_min(torch.finfo(bounds.dtype).tiny)
    scores: Tensor = (bounds - median) / torch.maximum(spread, smallest)
    return scores


def class_deviations(weight: Tensor) -> Tensor:
    """How far each row (K, I) of a classifier is from the mean row, against the other rows, (K,).

    The mean row changes no prediction and is taken off. Each row's length is compared with mean
    and standard deviation of all others (externally studentised): for normal lengths Student's t
    with K - 2 degrees of freedom.
    """
    lengths = (weight - weight.mean(0)).norm(dim=1)
    count = len(lengths)
    mean = (lengths.sum() - lengths) / (count - 1)
    square = (lengths.square().sum() - lengths.square()) / (count - 1)
    variance = (square - mean.square()) * (count - 1) / (count - 2)
    spread = torch.maximum(variance.clamp_min(0).sqrt(), _SMALLEST_SPREAD * mean)
    spread = spread.clamp_min(torch.finfo(spread.dtype).tiny)  # equal rows stand out by nothing
    scores: Tensor = (lengths - mean) / (spread * math.sqrt(1 + 1 / (count - 1)))
    return scores


def _classifier(weights: Mapping[str, Tensor]) -> str | None:
    """The last layer's name, if it is linear."""
    last = list(weights)[-1:]
    return last[0] if last and weights[last[0]].dim() == 2 else None


def _weights(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Weights in float64 by the name of their layer, in the order the modules are listed."""
    try:
        readable: nn.Module = FoldedCopy(network).network
    except UNTRACEABLE:
        readable = network
    for name, module in readable.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            yield name, module.weight.detach().cpu().double()


def _spectrum(name: str, weight: Tensor, deviations: Callable[[Tensor], Tensor]) -> LayerSpectrum:
    unfolding = weight.flatten(1)
    short = unfolding if unfolding.shape[0] <= unfolding.shape[1] else unfolding.T
    singular = torch.linalg.eigvalsh(short @ short.T).clamp_min(0).sqrt()
    scored = len(weight) >= FEWEST_CHANNELS and bool(weight.any())
    scores = deviations(weight) if scored else channel_lipschitz(weight)
    return LayerSpectrum(
        name=name,
        top_singular_value=float(singular[-1]),
        median_singular_value=float(singular.median()),
        largest_channel=int(scores.argmax()),
        channel_score=float(scores.amax()) if scored else None,
    )


def _flag(layer: LayerSpectrum, limit: float, kind: str) -> Notice:
    detail = (
        f"{kind} {layer.largest_channel} of layer {layer.name} stands out: "
        f"{layer.channel_score:.1f} standard deviations from the others, where up to {limit} are "
        "usual"
    )
    return Notice("spectral_outlier", detail)
