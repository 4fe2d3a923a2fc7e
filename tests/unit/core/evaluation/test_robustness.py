from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cstar_core.attacks import Norm, ThreatModel, ascend, input_gradient, uniform_start
from cstar_core.evaluation.attacks.curve import curve_epsilons, epsilon_curve
from cstar_core.evaluation.attacks.robustness import (
    PgdSettings,
    clean_correct,
    pgd_correct,
    predict,
)
from cstar_core.evaluation.batches import BatchDone, Record
from cstar_core.training.randomness import generator

from .classifiers import convolutional, predicted, problem

norms = pytest.mark.parametrize("norm", ["linf", "l2"])


@norms
def test_pgd_finds_the_exact_robust_accuracy_of_a_linear_model(norm: Norm) -> None:
    model, images, labels, threat, robust = problem(norm, n=40)
    settings = PgdSettings(steps=50, loss="margin", restarts=2)
    verdicts = pgd_correct(model, images, labels, threat, settings=settings, seed=0)
    assert torch.equal(verdicts, robust)


def test_a_misclassified_image_is_never_robust() -> None:
    model, images, labels, threat, _ = problem("linf", n=40)
    clean = clean_correct(model, images, labels)
    assert not clean.all()
    assert not (pgd_correct(model, images, labels, threat, seed=0) & ~clean).any()


def full_pgd(
    model: nn.Module, images: Tensor, labels: Tensor, threat: ThreatModel, steps: int
) -> Tensor:
    """Every iterate of every image, nothing dropped: the definition of the verdict."""
    perturbed = uniform_start(
        images, norm=threat.norm, radius=threat.epsilon, generator=generator(0, "pgd", 0, 0)
    )
    survives: Tensor = model(images).argmax(1) == labels
    for _ in range(steps):
        logits, gradient = input_gradient(model, perturbed, labels)
        survives &= logits.argmax(1) == labels
        perturbed = ascend(
            perturbed,
            gradient,
            images=images,
            norm=threat.norm,
            radius=threat.epsilon,
            step_size=2.5 / steps * threat.epsilon,
        )
    final: Tensor = model(perturbed).argmax(1) == labels
    return survives & final


@norms
def test_dropping_broken_images_early_changes_no_verdict(norm: Norm) -> None:
    model = convolutional()
    images, labels = predicted(model, n=60)
    threat = ThreatModel(norm, 0.03 if norm == "linf" else 0.25)
    dropped = pgd_correct(model, images, labels, threat, settings=PgdSettings(10), seed=0)
    assert torch.equal(dropped, full_pgd(model, images, labels, threat, 10))
    assert 5 < int(dropped.sum()) < 55


def test_more_restarts_break_no_fewer_images() -> None:
    model = convolutional()
    images, labels = predicted(model, n=60)
    one, four = (
        pgd_correct(
            model,
            images,
            labels,
            ThreatModel("linf", 0.03),
            settings=PgdSettings(steps=2, restarts=restarts),
            seed=0,
        )
        for restarts in (1, 4)
    )
    assert not (four & ~one).any()


def test_an_interrupted_evaluation_gives_the_same_verdicts() -> None:
    model = convolutional()
    images, labels = predicted(model)
    threat, seen = ThreatModel("linf", 0.03), list[BatchDone]()
    whole: dict[str, Record] = {}
    reference = pgd_correct(
        model, images, labels, threat, seed=0, batch_size=16, completed=whole, on_batch=seen.append
    )
    assert [(batch.done, batch.total) for batch in seen] == [(1, 3), (2, 3), (3, 3)]

    partly = json.loads(json.dumps({"0": whole["0"]}))
    seen.clear()
    resumed = pgd_correct(
        model, images, labels, threat, seed=0, batch_size=16, completed=partly, on_batch=seen.append
    )
    assert torch.equal(resumed, reference)
    assert [batch.done for batch in seen] == [2, 3]


def test_uint8_images_are_read_as_parts_of_255() -> None:
    model = convolutional()
    pixels = (predicted(model)[0] * 255).round().to(torch.uint8)
    assert torch.equal(predict(model, pixels), predict(model, pixels.float() / 255))


def test_predictions_do_not_depend_on_the_batch_size_or_the_mode() -> None:
    model = convolutional().train()
    images, _ = predicted(convolutional())
    assert torch.equal(
        predict(model, images, batch_size=7), predict(model.eval(), images, batch_size=40)
    )


def test_no_images_have_no_predictions() -> None:
    assert predict(convolutional(), torch.empty(0, 1, 8, 8)).shape == (0,)


def test_a_curve_falls_from_the_clean_accuracy_to_nothing() -> None:
    model = convolutional()
    images, labels = predicted(model)
    curve = epsilon_curve(model, images, labels, ThreatModel("linf", 0.03), seed=0)
    values = [point.accuracy.value for point in curve]
    assert curve[0].epsilon == 0
    assert values[0] == 1
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.1
    assert curve[-1].to_json()["epsilon"] == pytest.approx(0.24)


def test_a_curve_goes_on_until_accuracy_is_chance() -> None:
    model = convolutional()
    images, labels = predicted(model)
    curve = epsilon_curve(model, images, labels, ThreatModel("linf", 0.001), seed=0)
    assert [point.epsilon for point in curve[-3:]] == pytest.approx([0.008, 0.016, 0.032])
    assert curve[-2].accuracy.interval[0] > 0.35 > curve[-1].accuracy.interval[0]


@pytest.mark.parametrize(("norm", "grey"), [("linf", 0.5), ("l2", 4.0)])
def test_a_curve_that_never_falls_ends_where_every_image_may_be_grey(
    norm: Norm, grey: float
) -> None:
    class Stubborn(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return nn.functional.one_hot((images.flatten(1)[:, 0] >= 0).long(), 4).float() + (
                0 * images.flatten(1)[:, :4]
            )

    images = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.ones(40, dtype=torch.int64)
    curve = epsilon_curve(Stubborn(), images, labels, ThreatModel(norm, 0.02), seed=0)
    assert curve[-1].accuracy.value == 1
    assert curve[-1].epsilon == grey


def test_a_curve_goes_no_further_than_black_and_white() -> None:
    assert max(curve_epsilons(ThreatModel("linf", 0.5))) == 1.0
    assert max(curve_epsilons(ThreatModel("l2", 0.5))) == 4.0


def test_the_settings_name_themselves_and_resolve_the_default_step() -> None:
    assert PgdSettings().name == "pgd-20"
    assert PgdSettings(steps=50, restarts=5, loss="margin").name == "pgd-50x5-margin"
    assert PgdSettings().to_json()["step_size"] == 0.125
    assert PgdSettings(step_size=0.25).to_json()["step_size"] == 0.25


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"restarts": 0}, {"step_size": 0.0}])
def test_settings_that_attack_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="step"):
        PgdSettings(**wrong)
