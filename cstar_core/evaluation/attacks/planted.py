"""The evaluator tested on the very network it evaluates: planted examples it must find.

The binarization test of Zimmermann, Brendel, Tramer and Carlini, "Increasing Confidence in
Adversarial Robustness Evaluations" (NeurIPS 2022). For each image the last linear layer is replaced
by a two-class read-out of the same features: class 1 is one planted point on the surface of the
ball, class 0 the image and random points of the ball. An adversarial example then exists for
certain, and an attack that does not find it cannot be believed where it finds none.

It tests the path from pixels to features; what is done to the logits afterwards (a temperature, a
softmax) is replaced with the last layer and is seen by `reliability.model_flags` instead.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn

from cstar_core.attacks import ThreatModel, attack_mode, uniform_start
from cstar_core.evaluation.attacks.precision import float32_exact
from cstar_core.evaluation.attacks.robustness import PgdSettings, pgd_correct
from cstar_core.evaluation.batches import (
    Completed,
    Ledger,
    OnBatch,
    Record,
    batch_slices,
    unit_interval,
)
from cstar_core.norms import GEOMETRIES
from cstar_core.training.randomness import derive_seed, generator

# Five restarts, because the direction of a planted read-out is odder than that of any class: one
# restart of 20 steps finds 24 to 28 of 32 in an honest ResNet-8 of digits, five find them all.
SETTINGS = PgdSettings(steps=20, restarts=5)
# The share that the attack must find: honest networks gave 1.0, rounded ones 0.0.
REQUIRED = 0.9
# Points of class 0 to fit on and to set the boundary by, candidates for class 1, and fresh random
# points that look for class 1.
INNER, APART, CANDIDATES, BLIND = 128, 128, 32, 64
# Where the boundary lies between the outermost point of class 0 (0) and the planted one (1).
CLOSENESS = 0.4
# Above this share found by blind chance, finding them says nothing about the attack.
MOST_BY_CHANCE = 0.25
_BATCH = 128
_RIDGE = 0.1
NOT_PLANTED = "not_planted"
BY_CHANCE = "by_chance"


@dataclass(frozen=True)
class PlantedResult:
    """How many of `n` planted examples the attack found; `skipped` says why there was no test."""

    n: int
    found: int
    found_by_chance: int
    settings: PgdSettings
    required: float = REQUIRED
    skipped: str | None = None

    @property
    def rate(self) -> float:
        """The share found, from 0 to 1; 0 when nothing was planted."""
        return self.found / self.n if self.n else 0.0

    @property
    def passed(self) -> bool:
        """Whether the attack found enough; False when skipped, so look at `skipped` first."""
        return self.skipped is None and self.rate >= self.required

    def to_json(self) -> dict[str, Any]:
        """The test as a report shows it."""
        return {
            "n": self.n,
            "found": self.found,
            "rate": self.rate,
            "found_by_chance": self.found_by_chance,
            "required": self.required,
            "passed": self.passed,
            "skipped": self.skipped,
            "settings": self.settings.to_json(),
        }


def planted_test(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    settings: PgdSettings | None = None,
    seed: int,
    examples: int = 32,
    completed: Completed | None = None,
    on_batch: OnBatch | None = None,
) -> PlantedResult:
    """Plant one example in the ball of each of the first `examples` images, and look for them.

    `labels` (N,) are the true classes; they play no part, since every image gets classes of its
    own, and are here so that all measures take the same arguments. Each image is attacked alone by
    `pgd_correct`, the evaluation's own attack; each is one piece of `completed`.
    """
    del labels
    settings = settings or SETTINGS
    images = images[:examples]
    with float32_exact(model), attack_mode(model):
        features, why = features_of(model, images[:1])
        if features is None or threat.epsilon == 0:
            why = why or "there is no ball to plant an example in"
            return PlantedResult(0, 0, 0, settings, skipped=why)
        ledger = Ledger(len(images), completed=completed, on_batch=on_batch)
        test = _Test(features, threat, settings, seed)
        records = [
            ledger.recall_or(str(index), functools.partial(test.record, index, images[index]))
            for index in range(len(images))
        ]
    return _summary(records, settings)


def _summary(records: list[Record], settings: PgdSettings) -> PlantedResult:
    planted = [record for record in records if NOT_PLANTED not in record["flags"]]
    found = sum(not record["correct"][0] for record in planted)
    chance = sum(BY_CHANCE in record["flags"] for record in planted)
    skipped = None
    if not planted:
        skipped = "no point of any ball can be told apart from the others by the features"
    elif chance > MOST_BY_CHANCE * len(planted):
        skipped = f"random points find {chance} of {len(planted)} planted examples"
    return PlantedResult(len(planted), found, chance, settings, skipped=skipped)


class Features(nn.Module):
    """The input of `last`, the linear layer of `model` that is executed last: (N, d)."""

    def __init__(self, model: nn.Module, last: nn.Linear) -> None:
        super().__init__()
        self.model, self.last = model, last

    def forward(self, images: Tensor) -> Tensor:
        """Features (N, d) of images (N, C, H, W)."""
        seen: list[Tensor] = []
        handle = self.last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            self.model(images)
        finally:
            handle.remove()
        return seen[-1]


def features_of(model: nn.Module, images: Tensor) -> tuple[Features | None, str | None]:
    """The network up to its last linear layer, or None and the reason why there is none."""
    executed: list[nn.Linear] = []
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    handles = [
        layer.register_forward_pre_hook(lambda module, _: executed.append(module))
        for layer in linear
    ]
    try:
        with attack_mode(model), torch.no_grad():
            logits = model(unit_interval(images))
    finally:
        for handle in handles:
            handle.remove()
    if not executed:
        return None, "the network has no linear layer to replace by a planted read-out"
    features = Features(model, executed[-1])
    with attack_mode(model), torch.no_grad():
        if features(unit_interval(images)).dim() != logits.dim():
            return None, "the last linear layer does not read one feature vector an image"
    return features, None


class Planted(nn.Module):
    """Two classes for one image: logits (N, 2), zero and (features - mean) . weight - threshold."""

    def __init__(self, features: nn.Module, mean: Tensor, weight: Tensor, threshold: float) -> None:
        super().__init__()
        self.features, self.mean, self.weight = features, mean, weight
        self.threshold = threshold

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 2) of images (N, C, H, W); class 1 is the planted one."""
        score = (self.features(images) - self.mean) @ self.weight - self.threshold
        return torch.stack([torch.zeros_like(score), score], dim=1)


@dataclass(frozen=True)
class _Test:
    """Plants an example near one image after another, and attacks."""

    features: Features
    threat: ThreatModel
    settings: PgdSettings
    seed: int

    def record(self, index: int, image: Tensor) -> Record:
        """`correct`: whether the attack missed what was planted near image `index`, (C, H, W)."""
        images = unit_interval(image[None])
        source = generator(self.seed, "planted", index, device=image.device)
        network = self.plant(images, source)
        if network is None:
            return {"correct": [True], "flags": [NOT_PLANTED]}
        survives = pgd_correct(
            network,
            images,
            torch.zeros(1, dtype=torch.int64, device=image.device),
            self.threat,
            settings=self.settings,
            seed=derive_seed(self.seed, "planted", index),
        )
        blind = self._points(images, BLIND, source)
        lucky = bool((_in_batches(network, blind)[:, 1] > 0).any())
        return {"correct": survives.tolist(), "flags": [BY_CHANCE] if lucky else []}

    def plant(self, images: Tensor, source: Generator) -> Planted | None:
        """A read-out with one point of class 1, or None if the features tell no point apart."""
        inner = torch.cat([images, self._points(images, INNER, source)])
        apart = self._points(images, APART, source)
        candidates = self._surface(images.expand(CANDIDATES, *images.shape[1:]), source)
        fit = separate(
            *(_in_batches(self.features, points) for points in (inner, apart, candidates))
        )
        if fit is None:
            return None
        mean, weight, threshold = fit
        return Planted(self.features, mean, weight, threshold)

    def _points(self, images: Tensor, count: int, source: Generator) -> Tensor:
        """Random points of the ball, half of them of its surface: (count, C, H, W)."""
        repeated = images.expand(count // 2, *images.shape[1:])
        inside = uniform_start(
            repeated, norm=self.threat.norm, radius=self.threat.epsilon, generator=source
        )
        return torch.cat([inside, self._surface(repeated, source)])

    def _surface(self, images: Tensor, source: Generator) -> Tensor:
        """Random points of the surface (corners in L-inf), clipped to [0, 1]."""
        noise = torch.randn(images.shape, generator=source, device=images.device)
        direction = GEOMETRIES[self.threat.norm].direction(noise)
        return (images + self.threat.epsilon * direction).clamp(0, 1)


def separate(inside: Tensor, apart: Tensor, outside: Tensor) -> tuple[Tensor, Tensor, float] | None:
    """The read-out that tells one row of `outside` (K, d) best from `inside` (M, d) and `apart`.

    Fisher's linear discriminant (1936) with a ridge, fitted on `inside` for each candidate, in
    float64; the boundary is set with a view to `apart` too, because points that a direction was
    fitted on say too little of how far others reach. Scores have deviation 1 inside. Returns mean
    (d,), weight (d,) and threshold, or None if no candidate lies beyond all other points.
    """
    inside, apart, outside = inside.double(), apart.double(), outside.double()
    mean = inside.mean(0)
    centred, beyond = inside - mean, outside - mean
    covariance = centred.T @ centred / len(inside)
    scale = covariance.diagonal().mean()
    if not scale > 0:
        return None
    ridge = _RIDGE * scale * torch.eye(len(covariance), device=mean.device, dtype=mean.dtype)
    weights = torch.linalg.solve(covariance + ridge, beyond.T)  # (d, K)
    weights = weights / (centred @ weights).std(0).clamp_min(torch.finfo(mean.dtype).tiny)
    outermost = (torch.cat([centred, apart - mean]) @ weights).amax(0)
    planted = (beyond * weights.T).sum(1)
    best = int((planted - outermost).argmax())
    if not planted[best] > outermost[best]:
        return None
    threshold = outermost[best] + CLOSENESS * (planted[best] - outermost[best])
    return mean.float(), weights[:, best].float(), float(threshold)


@torch.no_grad()
def _in_batches(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    parts = [network(images[where]) for where in batch_slices(len(images), _BATCH)]
    return torch.cat(parts)
