"""Operations of a network on intervals; each returns bounds that hold for every point in them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from cstar_core.evaluation.certified.intervals import Ball, Interval


class Operation(ABC):
    """A step of a network."""

    @abstractmethod
    def bound(self, *values: Interval) -> Interval:
        """Bounds of the result for all inputs within `values`."""


@dataclass(frozen=True)
class Affine(Operation):
    """y = W x + b, with the weight and bias in float64."""

    weight: Tensor
    bias: Tensor

    @abstractmethod
    def apply(self, values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """This operator with another weight in its place, for values (N, ...)."""

    def bound(self, *values: Interval) -> Interval:
        """W c + b -+ |W| r for a box of centre c and radius r: exact for each output by itself.

        In a ball, output i moves by the dual norm |W_i s|_2; the tighter of both bounds holds.
        """
        (x,) = values
        middle = self.apply((x.lower + x.upper) / 2, self.weight, self.bias)
        reach = self.apply((x.upper - x.lower) / 2, self.weight.abs())
        lower, upper = middle - reach, middle + reach
        if x.ball is not None:
            middle = self.apply(x.ball.centre, self.weight, self.bias)
            reach = self.apply(x.ball.scale.square(), self.weight.square()).sqrt()
            lower, upper = (
                torch.maximum(lower, middle - reach),
                torch.minimum(upper, middle + reach),
            )
        return Interval(lower, upper)


@dataclass(frozen=True)
class Linear(Affine):
    """weight (O, I) on the last axis, bias (O,)."""

    def apply(self, values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """(N, ..., I) -> (N, ..., O)."""
        return F.linear(values, weight, bias)

    def gaps_to(self, label: int) -> Linear:
        """The operator of the margins z_label - z_j of all classes j, for logits z = W x + b."""
        return Linear(self.weight[label] - self.weight, self.bias[label] - self.bias)


@dataclass(frozen=True)
class Convolution(Affine):
    """weight (O, I / groups, kh, kw), bias (O,), zero padding."""

    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] | str = (0, 0)
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1

    def apply(self, values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """(N, I, H, W) -> (N, O, H', W')."""
        return F.conv2d(values, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    @property
    def is_pointwise(self) -> bool:
        """Whether its kernel is 1x1."""
        return tuple(self.weight.shape[2:]) == (1, 1)

    @property
    def is_padded(self) -> bool:
        """Whether some of its outputs see zeros that are not in its input."""
        if isinstance(self.padding, str):
            return self.padding == "same" and not self.is_pointwise
        return any(self.padding)


@dataclass(frozen=True)
class Diagonal(Operation):
    """y = scale x + shift; both broadcast over (N, C, H, W). Exact on intervals and balls."""

    scale: Tensor
    shift: Tensor

    def bound(self, *values: Interval) -> Interval:
        """Scaled and shifted; a negative scale swaps the ends."""
        (x,) = values
        one, other = self.scale * x.lower + self.shift, self.scale * x.upper + self.shift
        ball = x.ball and Ball(
            self.scale * x.ball.centre + self.shift, self.scale.abs() * x.ball.scale
        )
        return Interval(torch.minimum(one, other), torch.maximum(one, other), ball)


@dataclass(frozen=True)
class Monotone(Operation):
    """A function that never falls as an entry of its input rises: activations and pooling."""

    function: Callable[[Tensor], Tensor]

    def bound(self, *values: Interval) -> Interval:
        """The function at both ends."""
        (x,) = values
        return Interval(self.function(x.lower), self.function(x.upper))


@dataclass(frozen=True)
class Rearrangement(Operation):
    """Takes each entry to one place at most, and puts constants elsewhere; `of_scale` puts zeros.

    Such as flattening, slicing and zero padding; `of_scale` None is the function itself.
    """

    function: Callable[[Tensor], Tensor]
    of_scale: Callable[[Tensor], Tensor] | None = None

    def bound(self, *values: Interval) -> Interval:
        """The ends, and the ball where there is one, rearranged."""
        (x,) = values
        of_scale = self.of_scale or self.function
        ball = x.ball and Ball(self.function(x.ball.centre), of_scale(x.ball.scale))
        return Interval(self.function(x.lower), self.function(x.upper), ball)


@dataclass(frozen=True)
class Sum(Operation):
    """x + y, each anywhere in its interval."""

    def bound(self, *values: Interval) -> Interval:
        """The sums of the ends."""
        x, y = values
        return Interval(x.lower + y.lower, x.upper + y.upper)
