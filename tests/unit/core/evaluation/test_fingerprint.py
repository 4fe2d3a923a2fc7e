from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from cstar_core.evaluation.attacks.fingerprint import examples_sha256


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, 3, 4, 6), generator=source, dtype=torch.uint8)
    return images, torch.arange(5)


def test_a_stranger_computes_the_same_hash_with_numpy_alone() -> None:
    images, labels = batch()
    pixels, truth = np.asarray(images), np.asarray(labels).astype("<i8")
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(pixels.tobytes())
    digest.update(truth.tobytes())
    assert examples_sha256(images, labels) == digest.hexdigest()


def test_the_order_in_memory_does_not_change_the_hash() -> None:
    images, labels = batch()
    innermost = images.contiguous(memory_format=torch.channels_last)
    assert examples_sha256(innermost, labels) == examples_sha256(images, labels)


def test_any_other_examples_have_another_hash() -> None:
    images, labels = batch()
    pixel, label = images.clone(), labels.clone()
    pixel[4, 2, 3, 5] ^= 1
    label[0] = 9
    others = [(pixel, labels), (images, label), (images.flip(0), labels.flip(0))]
    others.append((images.view(5, 3, 6, 4), labels))
    hashes = {examples_sha256(*other) for other in [*others, (images, labels)]}
    assert len(hashes) == 5


def test_other_types_and_shapes_are_refused() -> None:
    images, labels = batch()
    with pytest.raises(ValueError, match="uint8"):
        examples_sha256(images.float(), labels)
    with pytest.raises(ValueError, match="int64"):
        examples_sha256(images, labels.int())
    with pytest.raises(ValueError, match=r"labels \(N,\)"):
        examples_sha256(images, labels[:4])
