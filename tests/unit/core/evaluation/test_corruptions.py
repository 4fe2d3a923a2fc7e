from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from cstar_core.evaluation.attacks.robustness import predict
from cstar_core.evaluation.batches import BatchDone, Record
from cstar_core.evaluation.corruptions.accuracy import (
    KINDS,
    SEVERITIES,
    CorruptionResult,
    corrupt,
    corruption_accuracy,
    unsuited,
)

from .classifiers import convolutional, predicted

SHAPES = [(3, 32, 32), (1, 32, 32), (3, 8, 8), (1, 8, 8), (2, 9, 12), (3, 224, 224)]


def textured(n: int, channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Images with detail of every size, as photographs have it: uint8 (N, C, H, W)."""
    source = torch.Generator().manual_seed(seed)
    total = torch.zeros(n, channels, height, width)
    for cells in (2, 4, 8, min(height, width)):
        grid = torch.rand(n, channels, cells, cells, generator=source)
        total += interpolate(grid, size=(height, width), mode="bilinear") / min(cells, 16)
    return (total / total.max() * 255).round().to(torch.uint8)


def suited(channels: int) -> list[str]:
    return [kind for kind in KINDS if unsuited(kind, channels) is None]


def change(images: Tensor, corrupted: Tensor) -> Tensor:
    """Mean squared change of every image, (N,)."""
    return (corrupted.float() - images.float()).square().flatten(1).mean(1)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_severity_changes_images_more_than_the_one_below(shape: tuple[int, int, int]) -> None:
    images = textured(2 if shape[1] > 32 else 40, *shape)
    for kind in suited(shape[0]):
        changes = [change(images, corrupt(images, kind, s, seed=0)).mean() for s in SEVERITIES]
        assert changes == sorted(changes), kind
        assert len(set(changes)) == len(SEVERITIES), kind
        assert changes[0] > 0, kind


@pytest.mark.parametrize("kind", KINDS)
def test_a_corrupted_image_is_one_of_the_same_shape_and_not_the_image_itself(kind: str) -> None:
    images = textured(20, 3, 32, 32)
    corrupted = corrupt(images, kind, 1, seed=0)
    assert (corrupted.shape, corrupted.dtype) == (images.shape, torch.uint8)
    assert (change(images, corrupted) > 0).all()
    assert change(images, corrupted).mean() < 0.01 * 255**2


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_bytes_whatever_the_batches(kind: str) -> None:
    images = textured(6, 3, 16, 16)
    whole = corrupt(images, kind, 3, seed=5)
    parts = [corrupt(images[i : i + 4], kind, 3, seed=5, first=i) for i in (0, 4)]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("kind", ["gaussian_noise", "shot_noise", "impulse_noise", "elastic"])
def test_seed_and_example_change_what_is_drawn(kind: str) -> None:
    images = textured(1, 3, 16, 16).expand(2, -1, -1, -1)
    first, second = corrupt(images, kind, 3, seed=0)
    assert not torch.equal(first, second)
    assert not torch.equal(first, corrupt(images, kind, 3, seed=1)[0])


def test_floats_are_corrupted_as_their_grey_levels_are() -> None:
    images = textured(4, 1, 8, 8)
    assert torch.equal(
        corrupt(images.float() / 255, "fog", 2, seed=0), corrupt(images, "fog", 2, seed=0)
    )


def test_contrast_and_blur_keep_the_mean_and_take_from_the_spread() -> None:
    images = textured(10, 1, 32, 32).float()
    for kind in ("contrast", "gaussian_blur", "motion_blur", "pixelate"):
        corrupted = corrupt(images / 255, kind, 5, seed=0).float()
        assert corrupted.mean() == pytest.approx(float(images.mean()), abs=2)
        assert corrupted.std() < images.std(), kind


def test_noise_has_the_strength_it_says() -> None:
    grey = torch.full((10, 1, 32, 32), 128, dtype=torch.uint8)
    deviation = corrupt(grey, "gaussian_noise", 3, seed=0).float().std() / 255
    assert float(deviation) == pytest.approx(0.09, rel=0.03)
    hit = corrupt(grey, "impulse_noise", 5, seed=0) != grey
    assert float(hit.float().mean()) == pytest.approx(0.12, rel=0.1)


@pytest.mark.parametrize(
    ("kind", "severity", "shape", "why"),
    [
        ("snow", 1, (3, 8, 8), "use one of"),
        ("saturate", 1, (1, 8, 8), "3 channels only"),
        ("jpeg", 1, (4, 8, 8), "1 or 3 channels only"),
        ("fog", 0, (3, 8, 8), "from 1 to 5"),
        ("fog", 6, (3, 8, 8), "from 1 to 5"),
        ("fog", 1, (3, 7, 8), "at least 8"),
    ],
)
def test_what_cannot_be_corrupted_is_refused(
    kind: str, severity: int, shape: tuple[int, ...], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        corrupt(torch.zeros(1, *shape), kind, severity, seed=0)


@pytest.fixture(scope="module")
def evaluated() -> tuple[
    nn.Module, Tensor, Tensor, CorruptionResult, dict[str, Record], list[BatchDone]
]:
    model = convolutional()
    images, labels = predicted(model, n=10)
    labels[0] = (labels[0] + 1) % 4
    completed: dict[str, Record] = {}
    heard: list[BatchDone] = []
    result = corruption_accuracy(
        model,
        images,
        labels,
        seed=3,
        batch_size=4,
        kinds=("fog", "saturate", "gaussian_noise"),
        completed=completed,
        on_batch=heard.append,
    )
    return model, images, labels, result, completed, heard


Evaluated = tuple[nn.Module, Tensor, Tensor, CorruptionResult, dict[str, Record], list[BatchDone]]


def test_the_accuracy_is_that_of_the_corrupted_images(evaluated: Evaluated) -> None:
    model, images, labels, result, *_ = evaluated
    seen = corrupt(images, "gaussian_noise", 5, seed=3)
    correct = int((predict(model, seen) == labels).sum())
    assert result.accuracies["gaussian_noise"][4].correct == correct
    assert result.accuracies["gaussian_noise"][4].n == 10


def test_the_json_has_every_accuracy_their_means_and_what_was_left_out(
    evaluated: Evaluated,
) -> None:
    stored = json.loads(json.dumps(evaluated[3].to_json()))
    rows = stored["kinds"]
    assert (stored["n"], stored["named"]) == (10, "generated here, not CIFAR-10-C")
    assert set(rows) == {"fog", "gaussian_noise"}
    assert stored["left_out"] == {
        "saturate": "made of 3 channels only, these images have 1",
    }
    assert stored["mean"] == pytest.approx(sum(map(sum, rows.values())) / 10)
    assert stored["by_kind"]["fog"] == pytest.approx(sum(rows["fog"]) / 5)
    assert stored["by_severity"][0] == pytest.approx(
        (rows["fog"][0] + rows["gaussian_noise"][0]) / 2
    )


def test_an_interrupted_evaluation_gives_the_same_figures(evaluated: Evaluated) -> None:
    model, images, labels, result, completed, heard = evaluated
    assert [batch.name for batch in heard[:2]] == ["fog/1", "fog/2"]
    assert [(batch.done, batch.total) for batch in heard] == [(i, 10) for i in range(1, 11)]
    partly = json.loads(json.dumps(completed))
    for name in ("gaussian_noise/4", "gaussian_noise/5"):
        del partly[name]
    again: list[BatchDone] = []
    resumed = corruption_accuracy(
        model,
        images,
        labels,
        seed=3,
        batch_size=4,
        kinds=("fog", "saturate", "gaussian_noise"),
        completed=partly,
        on_batch=again.append,
    )
    assert resumed == result
    assert [batch.done for batch in again] == [9, 10]


def test_images_that_no_kind_suits_are_refused() -> None:
    with pytest.raises(ValueError, match="kind that suits"):
        corruption_accuracy(
            convolutional(), *predicted(convolutional()), seed=0, kinds=("saturate",)
        )
