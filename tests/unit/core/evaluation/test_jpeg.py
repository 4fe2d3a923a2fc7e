from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from cstar_core.attacks import ThreatModel, ascend, input_gradient, uniform_start
from cstar_core.evaluation.attacks.robustness import PgdSettings, pgd_correct, predict
from cstar_core.evaluation.batches import BatchDone, Record
from cstar_core.evaluation.corruptions.jpeg import (
    ThroughJpeg,
    grey_levels,
    jpeg,
    jpeg_attacked_correct,
    jpeg_settings,
)
from cstar_core.training.randomness import generator

from .classifiers import convolutional, predicted

THREAT = ThreatModel("linf", 0.06)


def random_images(channels: int, n: int = 4, side: int = 16) -> Tensor:
    source = torch.Generator().manual_seed(0)
    return torch.rand(n, channels, side, side, generator=source)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_compression_is_that_of_a_real_encoder(channels: int, mode: str) -> None:
    images = random_images(channels)
    found = jpeg(images, 60)
    pixels = (images[2] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    encoded = io.BytesIO()
    Image.frombytes(mode, (16, 16), pixels.tobytes()).save(encoded, "JPEG", quality=60)
    expected = np.asarray(Image.open(encoded)).reshape(16, 16, channels)
    assert torch.equal(found[2].permute(1, 2, 0), torch.from_numpy(expected.copy()))


def test_a_lower_quality_changes_images_more() -> None:
    images = grey_levels(random_images(3))
    changes = [
        float((jpeg(images, quality).float() - images.float()).square().mean())
        for quality in (95, 75, 40, 10)
    ]
    assert changes == sorted(changes)
    assert changes[0] > 0


def test_the_model_sees_the_compressed_image_and_the_gradient_sees_none() -> None:
    seen: list[Tensor] = []

    class Summing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.detach())
            return 3 * x.flatten(1).sum(1, keepdim=True)

    images = random_images(3).requires_grad_(True)
    (gradient,) = torch.autograd.grad(ThroughJpeg(Summing(), 75)(images).sum(), images)
    assert torch.equal(seen[0], jpeg(images.detach(), 75).float() / 255)
    assert torch.equal(gradient, torch.full_like(images, 3.0))


def test_a_verdict_is_that_of_the_worst_compressed_iterate_within_the_ball() -> None:
    model = convolutional()
    images, labels = predicted(model, n=30)
    defended = ThroughJpeg(model, 75)
    survives = predict(defended, images) == labels
    perturbed = uniform_start(images, norm="linf", radius=0.06, generator=generator(0, "pgd", 0, 0))
    for _ in range(10):
        _, gradient = input_gradient(defended, perturbed, labels)
        survives &= predict(model, jpeg(perturbed, 75)) == labels
        assert float((perturbed - images).abs().max()) <= 0.06 + 1e-6
        perturbed = ascend(
            perturbed, gradient, images=images, norm="linf", radius=0.06, step_size=0.015
        )
    survives &= predict(model, jpeg(perturbed, 75)) == labels
    found = jpeg_attacked_correct(model, images, labels, THREAT, settings=PgdSettings(10), seed=0)
    assert torch.equal(found, survives)
    assert 0 < int(found.sum()) < 30


def test_an_attacker_who_knows_of_the_jpeg_breaks_more_than_one_who_does_not() -> None:
    model = convolutional()
    images, labels = predicted(model, n=60)
    knowing = jpeg_attacked_correct(model, images, labels, THREAT, seed=0)
    unknowing = predict(ThroughJpeg(model), crafted_without_jpeg(model, images, labels)) == labels
    assert int(knowing.sum()) < int(unknowing.sum())


def crafted_without_jpeg(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    perturbed = images
    for _ in range(20):
        _, gradient = input_gradient(model, perturbed, labels)
        perturbed = ascend(
            perturbed, gradient, images=images, norm="linf", radius=0.06, step_size=0.0075
        )
    return perturbed


def test_the_gradient_of_rounding_alone_would_have_found_nothing() -> None:
    class Rounded(nn.Module):
        """What an attacker meets who differentiates the compression itself: nothing."""

        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.model(jpeg(x.detach(), 75).float() / 255 + 0 * x)
            return logits

    model = convolutional()
    images, labels = predicted(model, n=60)
    masked = pgd_correct(Rounded(model), images, labels, THREAT, seed=0)
    assert int(jpeg_attacked_correct(model, images, labels, THREAT, seed=0).sum()) < int(
        masked.sum()
    )


def test_an_interrupted_attack_gives_the_same_verdicts() -> None:
    model = convolutional()
    images, labels = predicted(model, n=30)
    whole: dict[str, Record] = {}
    reference = jpeg_attacked_correct(
        model, images, labels, THREAT, seed=0, batch_size=16, completed=whole
    )
    seen: list[BatchDone] = []
    resumed = jpeg_attacked_correct(
        model,
        images,
        labels,
        THREAT,
        seed=0,
        batch_size=16,
        completed=json.loads(json.dumps({"0": whole["0"]})),
        on_batch=seen.append,
    )
    assert torch.equal(resumed, reference)
    assert [batch.done for batch in seen] == [2]


@pytest.mark.parametrize(
    ("channels", "quality", "why"),
    [(2, 75, "1 or 3 channels"), (3, 0, "from 1 to 95"), (3, 96, "from 1 to 95")],
)
def test_what_jpeg_cannot_do_is_refused(channels: int, quality: int, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        jpeg(torch.zeros(1, channels, 8, 8), quality)


def test_the_settings_say_what_compressed_and_how_the_attacker_saw_through_it() -> None:
    settings = json.loads(json.dumps(jpeg_settings(PgdSettings(), 60)))
    assert (settings["name"], settings["quality"]) == ("pgd-20 through JPEG", 60)
    assert "Pillow" in settings["encoder"]
    assert "BPDA" in settings["backward"]
