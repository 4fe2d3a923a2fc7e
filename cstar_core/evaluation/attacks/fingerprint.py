"""A hash of the exact examples that were attacked, which a stranger can compute again."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def examples_sha256(images: Tensor, labels: Tensor) -> str:
    """SHA-256, in hexadecimal, of images (N, C, H, W) uint8 and labels (N,) int64.

    With numpy arrays of these types, labels little-endian (`"<i8"`), both in C order, it is

        digest = hashlib.sha256(repr(images.shape).encode())   # such as "(100, 3, 32, 32)"
        digest.update(images.tobytes())
        digest.update(labels.tobytes())
        digest.hexdigest()

    Raises ValueError for other types, another number of dimensions, or not one label each.
    """
    if images.dtype != torch.uint8 or labels.dtype != torch.int64:
        raise ValueError(f"need uint8 images, int64 labels; got {images.dtype}, {labels.dtype}")
    if images.dim() != 4 or labels.shape != images.shape[:1]:
        shapes = f"{tuple(images.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"need images (N, C, H, W) and labels (N,), got {shapes}")
    digest = hashlib.sha256(repr(tuple(images.shape)).encode())
    digest.update(images.cpu().numpy().tobytes())  # tobytes is in C order whatever the strides
    digest.update(labels.cpu().numpy().astype("<i8").tobytes())
    return digest.hexdigest()
