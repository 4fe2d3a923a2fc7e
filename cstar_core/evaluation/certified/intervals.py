"""What is known of a value inside a network for every perturbed image of a ball."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cstar_core.attacks import ThreatModel


@dataclass(frozen=True)
class Ball:
    """{centre + scale * d : |d|_2 <= 1}, an axis-parallel ellipsoid for each example (N, ...)."""

    centre: Tensor
    scale: Tensor


@dataclass(frozen=True)
class Interval:
    """lower <= x <= upper for each entry, (N, ...); `ball`, where known, holds x as a whole too.

    Only the images of an L2 threat have a ball, and what merely moves or scales their pixels.
    """

    lower: Tensor
    upper: Tensor
    ball: Ball | None = None

    def take(self, rows: Tensor) -> Interval:
        """The examples that `rows` selects."""
        ball = self.ball and Ball(self.ball.centre[rows], self.ball.scale[rows])
        return Interval(self.lower[rows], self.upper[rows], ball)


def around(images: Tensor, threat: ThreatModel) -> Interval:
    """All images within `threat` of `images` (N, C, H, W) and within [0, 1]."""
    epsilon = threat.epsilon
    lower, upper = (images - epsilon).clamp(0, 1), (images + epsilon).clamp(0, 1)
    if threat.norm == "linf":
        return Interval(lower, upper)
    return Interval(lower, upper, Ball(images, images.new_full(images.shape, epsilon)))
