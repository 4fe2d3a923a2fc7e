"""What a norm decides in an attack: noise in its ball, steepest ascent, projection onto its ball.

To add a norm, write these three functions for it and name it in `GEOMETRIES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor

Norm = Literal["linf", "l2"]


def per_example(values: Tensor, like: Tensor) -> Tensor:
    """One value per example, (N,), in a shape that broadcasts over `like` (N, ...)."""
    return values.view(-1, *[1] * (like.dim() - 1))  # (N,) -> (N, 1, 1, 1)


def _l2(values: Tensor) -> Tensor:
    return per_example(values.flatten(1).norm(dim=1), values)


def _linf_noise(images: Tensor, radius: float, generator: Generator) -> Tensor:
    uniform = torch.rand(images.shape, generator=generator, device=images.device)
    return (2 * uniform - 1) * radius


def _linf_project(perturbation: Tensor, radius: float) -> Tensor:
    return perturbation.clamp(-radius, radius)


def _l2_noise(images: Tensor, radius: float, generator: Generator) -> Tensor:
    normal = torch.randn(images.shape, generator=generator, device=images.device)
    uniform = torch.rand(len(images), generator=generator, device=images.device)
    # Uniform in the ball: a uniform direction, and a radius whose d-th power is uniform.
    radii = radius * uniform ** (1 / max(1, images[0].numel()))
    return _l2_direction(normal) * per_example(radii, images)


def _l2_direction(gradient: Tensor) -> Tensor:
    return gradient / _l2(gradient).clamp_min(torch.finfo(gradient.dtype).tiny)


def _l2_project(perturbation: Tensor, radius: float) -> Tensor:
    length = _l2(perturbation).clamp_min(torch.finfo(perturbation.dtype).tiny)
    return perturbation * (radius / length).clamp_max(1)


class Geometry(NamedTuple):
    """What a norm decides: noise in its ball, steepest ascent, projection onto its ball."""

    noise: Callable[[Tensor, float, Generator], Tensor]
    direction: Callable[[Tensor], Tensor]
    project: Callable[[Tensor, float], Tensor]


GEOMETRIES: dict[str, Geometry] = {
    "linf": Geometry(_linf_noise, torch.sign, _linf_project),
    "l2": Geometry(_l2_noise, _l2_direction, _l2_project),
}
