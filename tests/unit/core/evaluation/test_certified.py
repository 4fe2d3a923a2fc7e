"""What is certified is robust, whatever attacks it; what has no bounds is skipped by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cstar_core.attacks import Norm, ThreatModel
from cstar_core.evaluation.attacks.robustness import (
    PgdSettings,
    clean_correct,
    pgd_correct,
    predict,
)
from cstar_core.evaluation.batches import BatchDone, Record
from cstar_core.evaluation.certified import (
    Unbounded,
    certification,
    certified_correct,
    invariant,
    logit_bounds,
)
from cstar_core.folding import FoldedCopy
from cstar_core.normalization import NormalizedModel

from ..export.networks import every_operation
from .classifiers import convolutional, predicted, problem

norms = pytest.mark.parametrize("norm", ["linf", "l2"])
# Where about half of the images of `convolutional` are certified.
EPSILON: dict[Norm, float] = {"linf": 0.006, "l2": 0.04}


@norms
@pytest.mark.parametrize("classes", [2, 5])
def test_the_certified_accuracy_of_a_linear_model_is_exact(norm: Norm, classes: int) -> None:
    model, images, labels, threat, robust = problem(norm, classes=classes, n=40)
    assert torch.equal(certified_correct(model, images, labels, threat), robust)


@norms
def test_no_attack_breaks_what_is_certified(norm: Norm) -> None:
    model = convolutional()
    images, labels = predicted(model, n=200)
    threat = ThreatModel(norm, EPSILON[norm])
    certified = certified_correct(model, images, labels, threat)
    assert 20 < int(certified.sum()) < 180
    settings = PgdSettings(steps=20, restarts=2, loss="margin")
    attacked = pgd_correct(model, images, labels, threat, settings=settings, seed=0)
    assert invariant(certified, attacked, clean_correct(model, images, labels)).holds


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_no_corner_of_the_ball_changes_what_is_certified(seed: int) -> None:
    model = convolutional(seed=seed)
    images, labels = predicted(model, n=20, seed=seed)
    epsilon = EPSILON["linf"]
    certified = certified_correct(model, images, labels, ThreatModel("linf", epsilon))
    generator = torch.Generator().manual_seed(seed)
    for _ in range(20):
        signs = torch.randint(0, 2, images.shape, generator=generator) * 2 - 1
        corner = (images + epsilon * signs).clamp(0, 1)
        assert not bool((certified & (predict(model, corner) != labels)).any())


def test_a_misclassified_image_is_never_certified() -> None:
    model = convolutional()
    images, labels = predicted(model)
    wrong = (labels + 1) % 4
    assert not certified_correct(model, images, wrong, ThreatModel("linf", 0.0)).any()


def test_fewer_images_are_certified_on_a_larger_ball() -> None:
    model = convolutional()
    images, labels = predicted(model, n=100)
    counts = [
        int(certified_correct(model, images, labels, ThreatModel("linf", epsilon)).sum())
        for epsilon in (0.0, 0.003, 0.006, 0.02, 0.3)
    ]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 95
    assert counts[-1] == 0


def test_the_edge_of_the_pixel_range_is_the_edge_of_the_ball() -> None:
    """Black images cannot become darker: what would need that is certified."""
    brightness = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    with torch.no_grad():
        brightness[1].weight.copy_(torch.stack([torch.zeros(64), -torch.ones(64)]))  # type: ignore[operator]
        brightness[1].bias.copy_(torch.tensor([0.0, -1.0]))  # type: ignore[operator]
    black, labels = torch.zeros(1, 1, 8, 8), torch.tensor([0])
    assert certified_correct(brightness, black, labels, ThreatModel("linf", 0.5)).all()
    grey = torch.full_like(black, 0.5)
    assert certified_correct(brightness, grey, labels, ThreatModel("linf", 0.4)).all()
    assert not certified_correct(brightness, black, 1 - labels, ThreatModel("linf", 0.5)).any()


def test_a_margin_within_the_rounding_of_float32_is_not_certified() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0] * 4, [1 - 1e-6] * 4]))  # type: ignore[operator]
    images, labels = torch.ones(1, 1, 2, 2), torch.tensor([0])
    assert clean_correct(model, images, labels).all()
    assert not certified_correct(model, images, labels, ThreatModel("linf", 0.0)).any()


def test_an_interrupted_certification_gives_the_same_verdicts() -> None:
    model = convolutional()
    images, labels = predicted(model)
    threat, seen = ThreatModel("linf", EPSILON["linf"]), list[BatchDone]()
    whole: dict[str, Record] = {}
    reference = certified_correct(
        model, images, labels, threat, batch_size=16, completed=whole, on_batch=seen.append
    )
    assert [(batch.done, batch.total) for batch in seen] == [(1, 3), (2, 3), (3, 3)]
    partly = json.loads(json.dumps({"1": whole["1"]}))
    seen.clear()
    resumed = certified_correct(
        model, images, labels, threat, batch_size=16, completed=partly, on_batch=seen.append
    )
    assert torch.equal(resumed, reference)
    assert [batch.done for batch in seen] == [1, 3]


def test_verdicts_depend_on_neither_batch_size_nor_mode_nor_pixel_format() -> None:
    model = nn.Sequential(nn.Dropout(0.5), convolutional()).train()
    pixels = (predicted(convolutional())[0] * 255).round().to(torch.uint8)
    labels = predict(model, pixels)
    threat = ThreatModel("linf", EPSILON["linf"])
    whole = certified_correct(model, pixels, labels, threat)
    assert model.training
    assert torch.equal(whole, certified_correct(model, pixels.float() / 255, labels, threat))
    assert torch.equal(whole, certified_correct(model.eval(), pixels, labels, threat, batch_size=7))
    assert 0 < int(whole.sum()) < len(whole)


def test_a_copy_with_folded_batch_norms_has_the_same_bounds() -> None:
    model = NormalizedModel(convolutional(), (0.5,), (0.25,)).eval()
    images, _ = predicted(convolutional())
    for threat in (ThreatModel("linf", 0.01), ThreatModel("l2", 0.1)):
        bounds, folded = (logit_bounds(each, images, threat) for each in (model, FoldedCopy(model)))
        for one, other in zip(bounds, folded, strict=True):
            assert torch.allclose(one, other, atol=1e-5)


def alone(layer: nn.Module) -> nn.Module:
    """As the only part of a network, where a trace sees it as a whole."""
    return nn.Sequential(layer)


class Squared(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class SharedInPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = x + 0.5
        return torch.flatten(self.relu(y) + y, 1)


@pytest.mark.parametrize(
    ("network", "named"),
    [
        (nn.Sequential(nn.Flatten(), nn.GELU()), "GELU (1)"),
        (nn.Sequential(nn.Flatten(), nn.Softmax(1)), "Softmax (1)"),
        (alone(nn.Conv2d(1, 2, 3, padding_mode="reflect")), "padding mode 'reflect'"),
        (alone(nn.BatchNorm2d(1, track_running_stats=False)), "without running statistics"),
        (alone(nn.Conv2d(1, 2, 3)), "an output of shape (32, 2, 6, 6)"),
        (Squared(), "mul"),
        (Branching(), "cannot be traced"),
        (SharedInPlace(), "relu, in place on a value that is used twice"),
        (every_operation(), "in place on a value that is used twice"),
    ],
)
def test_an_operation_without_known_bounds_is_skipped_by_name(
    network: nn.Module, named: str
) -> None:
    images, labels = predicted(convolutional())
    given: tuple[Any, ...] = (network, images, labels, ThreatModel("linf", 0.1))
    found = certification(*given)
    assert found.certified is None
    assert str(found.skipped).startswith("no bounds are known for")
    assert named in str(found.skipped)
    assert found.to_json()["value"] is None
    with pytest.raises(Unbounded):
        certified_correct(*given)


def test_a_certification_is_json_with_its_method_and_interval() -> None:
    model = convolutional()
    images, labels = predicted(model)
    found = certification(model, images, labels, ThreatModel("linf", EPSILON["linf"]))
    stored = json.loads(json.dumps(found.to_json()))
    assert found.certified is not None
    assert (stored["n"], stored["correct"]) == (40, int(found.certified.sum()))
    assert stored["skipped"] is None
    assert stored["label"] == "screening"
    assert "interval bound propagation" in stored["method"]


def test_the_invariant_counts_who_breaks_it() -> None:
    yes, no = torch.tensor([True]), torch.tensor([False])
    rows = [(yes, yes, yes), (no, no, no), (no, yes, yes), (yes, no, yes), (no, yes, no)]
    certified, attacked, clean = (torch.cat(column) for column in zip(*rows, strict=True))
    found = invariant(certified, attacked, clean)
    assert not found.holds
    assert "1 certified but broken, 1 robust but not correct" in found.detail
    kept = invariant(certified[:3], attacked[:3], clean[:3])
    assert kept.holds
    assert "of 3 examples 1 certified, 2 robust to the attacks, 2 correct" in kept.detail
