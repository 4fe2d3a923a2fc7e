from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from cstar_core.attacks import Norm, ThreatModel
from cstar_core.evaluation.attacks.named import attack_correct
from cstar_core.evaluation.attacks.planted import (
    PlantedResult,
    features_of,
    planted_test,
    separate,
)
from cstar_core.evaluation.attacks.robustness import PgdSettings
from cstar_core.evaluation.batches import BatchDone, Record
from cstar_core.folding import attack_target

from .classifiers import SIDE, convolutional, predicted
from .masked import THREAT, examples, honest, quantised

# --- the evaluator itself: one adversarial example whose distance is known exactly


def known(norm: Norm) -> tuple[nn.Module, Tensor, Tensor, float]:
    """Return a linear model of four classes, a grey image, its label, and its distance to class 1.

    Classes 2 and 3 are out of reach; class 1 wins from distance 0.05 on.
    """
    weights = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    weights[-1] = weights[:, -1] = 0  # which the small squares of Square never reach
    weight = weights.flatten()
    distance = 0.05
    layer = nn.Linear(SIDE * SIDE, 4)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[1] = weight
        dual = weight.abs().sum() if norm == "linf" else weight.norm()
        layer.bias.copy_(torch.tensor([0.0, 0.0, -100.0, -101.0]))
        layer.bias[1] = -0.5 * weight.sum() - distance * dual
    image = torch.full((1, 1, SIDE, SIDE), 0.5)
    return nn.Sequential(nn.Flatten(), layer), image, torch.tensor([0]), distance


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("attack", ["pgd-20", "pgd-50-margin", "autoattack"])
def test_an_example_just_inside_the_ball_is_found(norm: Norm, attack: str) -> None:
    model, image, label, distance = known(norm)
    inside = ThreatModel(norm, 1.02 * distance)
    assert not attack_correct(model, image, label, inside, attack, seed=0).robust


def test_square_finds_an_example_just_inside_the_ball_by_guessing() -> None:
    model, image, label, distance = known("linf")
    inside = ThreatModel("linf", 1.05 * distance)
    assert not attack_correct(model, image, label, inside, "square", seed=0).robust


@pytest.mark.parametrize(
    ("norm", "attack"),
    [
        ("linf", "pgd-20"),
        ("l2", "pgd-20"),
        ("linf", "pgd-50-margin"),
        ("l2", "pgd-50-margin"),
        ("linf", "autoattack"),  # with Square at its end
    ],
)
def test_an_example_just_outside_the_ball_is_found_by_none(norm: Norm, attack: str) -> None:
    model, image, label, distance = known(norm)
    outside = ThreatModel(norm, 0.99 * distance)
    assert attack_correct(model, image, label, outside, attack, seed=0).robust


# --- the test that runs in every job


@pytest.mark.parametrize("threat", [THREAT, ThreatModel("l2", 0.5)])
def test_what_is_planted_in_an_honest_network_is_found_and_not_by_chance(
    threat: ThreatModel,
) -> None:
    result = planted_test(honest(), *examples(8), threat, seed=0)
    assert result.n == 8
    assert result.passed
    assert result.found_by_chance <= 2


def test_what_is_planted_behind_rounded_activations_is_missed() -> None:
    weak = PgdSettings(steps=20)
    result = planted_test(quantised(honest()), *examples(8), THREAT, seed=0, settings=weak)
    assert not result.passed
    assert result.skipped is None
    assert result.rate < 0.5


def test_a_folded_copy_is_tested_like_the_network_itself() -> None:
    result = planted_test(attack_target(honest()), *examples(4), THREAT, seed=0)
    assert result.found == 4


class Split(nn.Module):
    """A classifier whose last layer is a pair, as the low-rank factorisation leaves it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = convolutional()[:4]
        self.unused = nn.Linear(3, 3)
        self.second = nn.Linear(6, 4)
        self.first = nn.Linear(4 * SIDE * SIDE, 6, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.second(self.first(self.body(images)))
        return logits


def test_the_features_are_what_the_linear_layer_executed_last_reads() -> None:
    torch.manual_seed(0)
    model = Split()
    images = torch.rand(3, 1, SIDE, SIDE)
    features, why = features_of(model, images)
    assert features is not None
    assert why is None
    assert torch.equal(features(images), model.eval().first(model.body(images)))


def test_an_example_is_planted_before_the_second_layer_of_a_pair() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Split()
    images, labels = predicted(convolutional(), n=4)
    result = planted_test(model, images, labels, ThreatModel("linf", 0.1), seed=0)
    assert (result.n, result.found) == (4, 4)


def test_a_network_without_a_linear_layer_is_skipped_with_the_reason() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, SIDE), nn.Flatten())
    result = planted_test(model, *examples(2), THREAT, seed=0)
    assert result.n == 0
    assert not result.passed
    assert "no linear layer" in str(result.to_json()["skipped"])


def test_features_that_never_change_hold_no_planted_example_and_say_so() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(3, 4)

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.last(0 * images.flatten(1)[:, :3])
            return logits

    result = planted_test(Constant(), *examples(2), THREAT, seed=0)
    assert "no point of any ball can be told apart" in str(result.skipped)


def test_what_random_points_find_as_well_is_no_test() -> None:
    result = PlantedResult(10, 10, 6, PgdSettings(), skipped="random points find 6 of 10")
    assert not result.passed


def test_equal_seeds_plant_alike_and_leave_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    completed: list[dict[str, Record]] = [{}, {}]
    for ledger in completed:
        planted_test(honest(), *examples(3), THREAT, seed=4, completed=ledger)
    assert completed[0] == completed[1]
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_interrupted_test_gives_the_same_result() -> None:
    whole: dict[str, Record] = {}
    reference = planted_test(honest(), *examples(3), THREAT, seed=0, completed=whole)
    partly = json.loads(json.dumps({"0": whole["0"], "1": whole["1"]}))
    heard: list[BatchDone] = []
    resumed = planted_test(
        honest(), *examples(3), THREAT, seed=0, completed=partly, on_batch=heard.append
    )
    assert resumed == reference
    assert [(batch.done, batch.total) for batch in heard] == [(3, 3)]


def test_a_read_out_puts_the_planted_point_alone_on_its_side() -> None:
    source = torch.Generator().manual_seed(0)
    inside, apart = torch.randn(50, 5, generator=source), torch.randn(50, 5, generator=source)
    outside = torch.cat([torch.zeros(1, 5), torch.full((1, 5), 6.0)])
    fit = separate(inside, apart, outside)
    assert fit is not None
    mean, weight, threshold = fit
    assert (((torch.cat([inside, apart]) - mean) @ weight) < threshold).all()
    assert (((outside - mean) @ weight) > threshold).tolist() == [False, True]


def test_a_point_among_the_others_cannot_be_planted() -> None:
    inside = torch.randn(50, 5, generator=torch.Generator().manual_seed(0))
    assert separate(inside, inside, inside.mean(0, keepdim=True)) is None
