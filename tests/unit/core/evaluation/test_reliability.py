from __future__ import annotations

import torch
from torch import Tensor, nn

from cstar_core.evaluation.curve import CurvePoint
from cstar_core.evaluation.reliability import (
    Flag,
    curve_flags,
    model_flags,
    square_flags,
    steps_flags,
)
from cstar_core.evaluation.statistics import Accuracy

from .classifiers import convolutional, linear, predicted


def codes(flags: list[Flag]) -> list[str]:
    return [flag.code for flag in flags]


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = linear(4)
        self.source = torch.Generator().manual_seed(0)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x)
        return logits + 0.1 * torch.randn(logits.shape, generator=self.source)


class Quantised(nn.Module):
    """Hides its gradient behind a step function."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = linear(4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner((x * 4).round() / 4)
        return logits


def test_an_honest_model_has_no_flags() -> None:
    model = convolutional()
    assert model_flags(model, *predicted(model)) == []


def test_a_randomised_model_is_flagged() -> None:
    assert codes(model_flags(Noisy(), *predicted(linear(4)))) == ["not_deterministic"]


def test_probabilities_are_flagged() -> None:
    model = nn.Sequential(linear(4), nn.Softmax(1))
    assert "softmax_output" in codes(model_flags(model, *predicted(model)))


def test_a_masked_gradient_is_flagged_with_its_count() -> None:
    (flag,) = model_flags(Quantised(), *predicted(linear(4), n=40))
    assert flag.to_json() == {
        "code": "zero_gradients",
        "detail": "40 of 40 images have no input gradient",
    }


def test_square_breaking_what_gradients_could_not_is_flagged() -> None:
    assert codes(square_flags({"apgd-ce": 9, "square": 3}, 100)) == ["square_stronger"]
    assert square_flags({"apgd-ce": 9, "square": 0}, 100) == []
    assert square_flags({"apgd-ce": 9}, 100) == []


def test_many_steps_breaking_far_more_than_few_is_flagged() -> None:
    few = torch.ones(100, dtype=torch.bool)
    many = few.clone()
    many[:5] = False
    assert steps_flags(few, many) == []
    many[:6] = False
    assert codes(steps_flags(few, many)) == ["more_steps_much_stronger"]


def curve(*correct: int) -> list[CurvePoint]:
    return [CurvePoint(0.01 * i, Accuracy(c, 100)) for i, c in enumerate(correct)]


def test_a_curve_that_falls_to_chance_has_no_flags() -> None:
    assert curve_flags(curve(90, 50, 10, 0), classes=10) == []


def test_a_larger_epsilon_that_is_weaker_is_flagged() -> None:
    assert codes(curve_flags(curve(90, 50, 60, 0), classes=10)) == ["larger_epsilon_not_stronger"]


def test_a_curve_that_stays_above_chance_is_flagged() -> None:
    assert codes(curve_flags(curve(90, 70, 60, 50), classes=10)) == ["not_broken_at_large_epsilon"]
