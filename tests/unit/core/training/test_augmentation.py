from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from cstar_core.training.augmentation import augment, random_crop, random_flip


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int = 6, size: int = 8) -> Tensor:
    return torch.rand(n, 2, size, size, generator=source(1))


def windows(image: Tensor, padding: int) -> list[Tensor]:
    """All crops of one padded image, (C, H, W)."""
    _, height, width = image.shape
    padded = F.pad(image, [padding] * 4)
    shifts = range(2 * padding + 1)
    return [padded[:, y : y + height, x : x + width] for y in shifts for x in shifts]


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), padding=st.integers(1, 3))
def test_every_cropped_example_is_a_window_of_its_padded_image(seed: int, padding: int) -> None:
    x = images()
    cropped = random_crop(x, padding=padding, generator=source(seed))
    for original, crop in zip(x, cropped, strict=True):
        assert any(torch.equal(crop, window) for window in windows(original, padding))


def test_examples_of_a_batch_are_cropped_at_different_places() -> None:
    x = images(1).expand(64, -1, -1, -1)
    cropped = random_crop(x, padding=1, generator=source())
    assert len(torch.unique(cropped.flatten(1), dim=0)) == 9


def test_every_flipped_example_is_itself_or_its_mirror_image() -> None:
    x = images(64)
    flipped = random_flip(x, generator=source())
    same = (flipped == x).flatten(1).all(1)
    mirrored = (flipped == x.flip(-1)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 16 < int(same.sum()) < 48


def test_none_returns_the_images_themselves() -> None:
    x = images()
    assert augment(x, "none", generator=source()) is x


@pytest.mark.parametrize("kind", ["crop", "crop_flip"])
def test_an_augmented_batch_keeps_its_shape_and_follows_its_generator(kind: Any) -> None:
    x = images(16, size=32)
    first, again, other = (augment(x, kind, generator=source(seed)) for seed in (1, 1, 2))
    assert first.shape == x.shape
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_images_of_32_pixels_are_shifted_by_at_most_four() -> None:
    x = torch.zeros(256, 1, 32, 32)
    x[:, :, 16, 16] = 1
    rows, columns = augment(x, "crop", generator=source())[:, 0].nonzero()[:, 1:].T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (12, 20, 12, 20)


def test_an_unknown_augmentation_is_refused() -> None:
    unknown: Any = "mixup"
    with pytest.raises(ValueError, match="unknown augmentation 'mixup'"):
        augment(images(), unknown, generator=source())
