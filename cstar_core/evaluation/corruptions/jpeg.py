"""JPEG as a corruption, and as a defence whose attacker knows it.

A classifier that sees JPEG(x') is often called robust because rounding hides its gradient. Here
the attacker looks through the rounding, so that the figure shows what JPEG really takes from him.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from cstar_core.attacks import ThreatModel
from cstar_core.evaluation.attacks.robustness import PgdSettings, pgd_correct
from cstar_core.evaluation.batches import Completed, OnBatch

QUALITY = 75  # what encoders do unless told otherwise
CHANNELS = (1, 3)  # greyscale and colour: JPEG as Pillow writes it knows no other

Pixels = NDArray[np.uint8]


def grey_levels(images: Tensor) -> Tensor:
    """Images as uint8: floats in [0, 1] go to the nearest of the 256 levels, uint8 unchanged."""
    return images if images.dtype == torch.uint8 else (images * 255).round().to(torch.uint8)


def compress(image: Pixels, quality: int) -> Pixels:
    """One image (H, W, C), C 1 or 3, after a real JPEG encoder and decoder; 1 <= quality <= 95."""
    encoded = io.BytesIO()
    Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(
        encoded, "JPEG", quality=quality
    )
    return np.asarray(Image.open(encoded, formats=["JPEG"])).reshape(image.shape)


def jpeg(images: Tensor, quality: int) -> Tensor:
    """Compress images (N, C, H, W), uint8 or in [0, 1]; returns uint8 on the same device.

    ValueError unless there are 1 or 3 channels and quality is from 1 to 95.
    """
    _check(images.shape[1], quality)
    pixels = grey_levels(images).permute(0, 2, 3, 1).cpu().numpy()
    compressed = np.empty_like(pixels, order="C")
    for index, image in enumerate(pixels):
        compressed[index] = compress(np.ascontiguousarray(image), quality)
    return torch.from_numpy(compressed).permute(0, 3, 1, 2).contiguous().to(images.device)


class ThroughJpeg(nn.Module):
    """The classifier `model`(JPEG(x)): a real JPEG forward, the identity backward.

    Backward pass differentiable approximation (Athalye et al. 2018, section 4.1): compression
    moves an image little, so its derivative is taken for the identity, where the true one is zero
    almost everywhere. Takes images (N, C, H, W) in [0, 1], C 1 or 3.
    """

    def __init__(self, model: nn.Module, quality: int = QUALITY) -> None:
        super().__init__()
        self.model, self.quality = model, quality
        self.train(model.training)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of the compressed images."""
        compressed = jpeg(images.detach(), self.quality).to(images.dtype) / 255
        # The difference is exactly 0: the model sees what JPEG made, to the bit.
        logits: Tensor = self.model(compressed + (images - images.detach()))
        return logits


def jpeg_attacked_correct(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    settings: PgdSettings | None = None,
    quality: int = QUALITY,
    seed: int,
    batch_size: int = 256,
    completed: Completed | None = None,
    on_batch: OnBatch | None = None,
) -> Tensor:
    """Whether `model`(JPEG(x')) stays correct for every x' of a PGD that knows of it, (N,) bool.

    x' lies within `threat` of the image before it is compressed; everything else is as in
    `pgd_correct`. ValueError unless there are 1 or 3 channels and quality is from 1 to 95.
    """
    _check(images.shape[1], quality)
    return pgd_correct(
        ThroughJpeg(model, quality),
        images,
        labels,
        threat,
        settings=settings,
        seed=seed,
        batch_size=batch_size,
        completed=completed,
        on_batch=on_batch,
    )


def jpeg_settings(settings: PgdSettings, quality: int = QUALITY) -> dict[str, Any]:
    """All that is needed to repeat `jpeg_attacked_correct`, as a report states it."""
    return settings.to_json() | {
        "name": f"{settings.name} through JPEG",
        "quality": quality,
        "encoder": f"Pillow {PIL.__version__}, colours at half resolution (4:2:0)",
        "forward": "JPEG of the perturbed image, rounded to 8 bits",
        "backward": "identity (BPDA, Athalye et al. 2018)",
    }


def _check(channels: int, quality: int) -> None:
    if channels not in CHANNELS:
        raise ValueError(f"JPEG takes 1 or 3 channels, got {channels}")
    if not 1 <= quality <= 95:
        raise ValueError(f"JPEG quality goes from 1 to 95, got {quality}")
