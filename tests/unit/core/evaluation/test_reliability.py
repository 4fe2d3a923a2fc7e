from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from cstar_core.attacks import ThreatModel
from cstar_core.evaluation.attacks.curve import CurvePoint, epsilon_curve
from cstar_core.evaluation.attacks.planted import PlantedResult, planted_test
from cstar_core.evaluation.attacks.robustness import PgdSettings, pgd_correct
from cstar_core.evaluation.attacks.steps import steps_check
from cstar_core.evaluation.reliability import (
    Code,
    Flag,
    Reliability,
    consistency_flags,
    curve_flags,
    library_flags,
    model_flags,
    planted_flags,
    square_flags,
    steps_flags,
    transfer_flags,
    verdict,
)
from cstar_core.evaluation.statistics import Accuracy

from . import masked
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


def test_one_broken_example_alone_is_no_sign_however_few_there_are() -> None:
    robust, broken = torch.ones(10, dtype=torch.bool), torch.ones(10, dtype=torch.bool)
    broken[0] = False
    assert square_flags({"square": 1}, 10) == []
    assert consistency_flags(robust, broken) == []
    assert transfer_flags(broken, robust) == []
    assert (
        curve_flags(
            [CurvePoint(0.1, Accuracy(0, 10)), CurvePoint(0.2, Accuracy(1, 10))], classes=10
        )
        == []
    )
    broken[1] = False
    assert codes(square_flags({"square": 2}, 10)) == ["square_stronger"]
    assert codes(consistency_flags(robust, broken)) == ["autoattack_weaker_than_pgd"]
    assert codes(transfer_flags(broken, robust)) == ["transfer_stronger"]


def test_transfer_is_measured_on_what_the_white_box_attacks_left() -> None:
    white_box = torch.tensor([True] * 20 + [False] * 80)
    transfer = torch.tensor([False] * 3 + [True] * 17 + [False] * 80)
    (flag,) = transfer_flags(transfer, white_box)
    assert flag.detail == "transfer broke 3 of the 20 images that the white-box attacks left"


def test_a_planted_test_that_was_skipped_is_no_sign() -> None:
    settings = PgdSettings()
    assert planted_flags(PlantedResult(0, 0, 0, settings, skipped="no linear layer")) == []
    assert planted_flags(PlantedResult(10, 9, 0, settings)) == []
    (flag,) = planted_flags(PlantedResult(10, 8, 0, settings))
    assert flag.to_json() == {"code": "planted_missed", "detail": "8 of 10 found, 90% required"}


def test_the_librarys_warnings_become_flags_that_say_where_they_are_from() -> None:
    flags = library_flags(["dynamic_model", "zero_gradients", "something_new"])
    assert codes(flags) == ["dynamic_model", "library_warning"]  # gradients are counted elsewhere
    assert flags[0].detail.startswith("AutoAttack's own check")


def test_an_evaluation_without_flags_is_reliable() -> None:
    assert verdict([]) == Reliability(True, [])


@pytest.mark.parametrize("code", get_args(Code))
def test_every_code_is_explained_in_one_sentence_with_its_figures(code: Code) -> None:
    (reason,) = verdict([Flag(code, "3 of 40")]).reasons
    assert reason.endswith(" (3 of 40).")
    assert reason[0].isupper()
    assert "_" not in reason


def test_flags_of_one_code_share_a_sentence() -> None:
    flags = [Flag("zero_gradients", "a"), Flag("planted_missed", "b"), Flag("zero_gradients", "c")]
    found = verdict([*flags, flags[0]])
    assert not found.reliable
    assert [reason[reason.index("(") :] for reason in found.reasons] == ["(a; c).", "(b)."]


def test_the_check_of_the_steps_attacks_the_survivors_alone() -> None:
    model = convolutional()
    images, labels = predicted(model)
    threat = ThreatModel("linf", 0.03)
    few = PgdSettings(steps=1, step_size=0.01)
    verdict_of_few = pgd_correct(model, images, labels, threat, settings=few, seed=0)
    seen: list[int] = []
    hook = model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    check = steps_check(model, images, labels, threat, verdict_of_few, few=few, seed=0)
    hook.remove()
    assert max(seen) == int(verdict_of_few.sum())
    assert not (check.many_correct & ~verdict_of_few).any()
    assert codes(steps_flags(check.few_correct, check.many_correct)) == ["more_steps_much_stronger"]
    assert check.to_json() == {
        "few": "pgd-1",
        "many": "pgd-100",
        "n": 40,
        "broken_more": int(verdict_of_few.sum() - check.many_correct.sum()),
    }


def everything(model: nn.Module, n: int = 32) -> list[Flag]:
    """Return the flags of the checks that need no AutoAttack, on handwritten digits."""
    images, labels = masked.examples(n)
    given = (model, images, labels, masked.THREAT)
    few = pgd_correct(*given, seed=0)
    check = steps_check(*given, few, many=PgdSettings(steps=40), seed=0)
    return [
        *model_flags(model, images, labels),
        *steps_flags(check.few_correct, check.many_correct),
        *curve_flags(epsilon_curve(*given, settings=PgdSettings(10), seed=0), classes=10),
        *planted_flags(planted_test(*given, seed=0, examples=4)),
    ]


def test_an_honest_adversarially_trained_network_is_reliable() -> None:
    assert verdict(everything(masked.honest())) == Reliability(True, [])


@pytest.mark.parametrize(
    ("model", "signs"),
    [
        (masked.Hot(masked.honest()), {"zero_gradients"}),
        (nn.Sequential(masked.honest(), nn.Softmax(1)), {"softmax_output"}),
        (
            masked.quantised(masked.honest()),
            {"zero_gradients", "planted_missed"},
        ),
        (masked.Noisy(masked.honest()), {"not_deterministic"}),
    ],
    ids=["huge temperature", "probabilities", "rounded activations", "noise"],
)
def test_a_network_that_hides_its_gradients_is_unreliable(
    model: nn.Module, signs: set[Code]
) -> None:
    flags = everything(model)
    assert signs <= set(codes(flags))
    assert not verdict(flags).reliable


def test_numbers_that_are_no_numbers_are_flagged() -> None:
    class Overflowing(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, :4] * 1e30 * 1e30 - 1e38 * 1e38

    images = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    flags = model_flags(Overflowing(), images, torch.zeros(4, dtype=torch.int64))

    assert "not_finite" in {flag.code for flag in flags}
