"""The common corruptions, each a function of one image, and how strong they are at each severity.

The idea and most of the kinds are those of Hendrycks & Dietterich (2019); the strengths are ours,
so that any size from 8 x 8 on has them. Pillow and numpy alone: the libraries that do this bring
OpenCV or ImageMagick.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from cstar_core.evaluation.corruptions.jpeg import CHANNELS as JPEG_CHANNELS
from cstar_core.evaluation.corruptions.jpeg import Pixels, compress

USUAL_SIDE = 32  # lengths are in pixels of images of this side
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601

Array = NDArray[np.floating[Any]]  # one image (H, W, C) in [0, 1], float32 where speed counts
Corrupt = Callable[[Array, float, np.random.Generator], Array]


def apply(kind: str, pixels: Pixels, severity: int, source: np.random.Generator) -> Pixels:
    """One image (H, W, C) uint8 under corruption `kind` at severity 1 to 5."""
    corrupt, strengths = KINDS[kind].corrupt, KINDS[kind].strengths
    return _pixels(corrupt(pixels.astype(np.float32) / 255, strengths[severity - 1], source))


def gaussian_noise(image: Array, deviation: float, source: np.random.Generator) -> Array:
    """Normal noise of this standard deviation."""
    return image + deviation * source.standard_normal(image.shape, dtype=np.float32)


def shot_noise(image: Array, photons: float, source: np.random.Generator) -> Array:
    """Poisson noise: a white pixel counts this many photons."""
    return (source.poisson(image * photons) / photons).astype(np.float32)


def impulse_noise(image: Array, share: float, source: np.random.Generator) -> Array:
    """This share of all values, and at least one, becomes 0 or 1 (salt and pepper)."""
    order, salt = source.random(image.shape), source.random(image.shape) < 0.5
    return np.where(order <= max(share, order.min()), salt, image).astype(np.float32)


def gaussian_blur(image: Array, deviation: float, _source: np.random.Generator) -> Array:
    """Blur by a Gaussian of this standard deviation, in pixels."""
    blur = ImageFilter.GaussianBlur(deviation * _scale(image))
    channels = np.ascontiguousarray(_pixels(image).transpose(2, 0, 1))
    blurred = [np.asarray(Image.fromarray(channel).filter(blur)) for channel in channels]
    return np.stack(blurred, axis=2) / np.float32(255)


def motion_blur(image: Array, length: float, source: np.random.Generator) -> Array:
    """Blur along a line of this many pixels: level, upright or diagonal."""
    down, right = ((0, 1), (1, 0), (1, 1), (1, -1))[source.integers(4)]
    half = length * _scale(image) / 2
    reach = math.ceil(half)
    height, width, _ = image.shape
    padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    blurred, total = np.zeros_like(image), 0.0
    for step in range(-reach, reach + 1):
        weight = min(1.0, max(0.0, half + 0.5 - abs(step)))  # pixels at the ends count in part
        top, left = reach + down * step, reach + right * step
        blurred += np.float32(weight) * padded[top : top + height, left : left + width]
        total += weight
    return blurred / np.float32(total)


def fog(image: Array, density: float, source: np.random.Generator) -> Array:
    """Bright haze of uneven thickness covers the image up to this share."""
    haze = 0.5 + 0.5 * _smooth_field(image, source)
    return image + density * (haze[:, :, None] - image)


def brightness(image: Array, added: float, _source: np.random.Generator) -> Array:
    """Every value rises by this much."""
    return image + np.float32(added)


def contrast(image: Array, kept: float, _source: np.random.Generator) -> Array:
    """Only this share of every value's distance to its channel's mean is kept."""
    mean: Array = image.mean(axis=(0, 1))
    return mean + np.float32(kept) * (image - mean)


def saturate(image: Array, factor: float, _source: np.random.Generator) -> Array:
    """Colours move away from grey by this factor; colour images only."""
    grey = (image @ LUMA)[:, :, None]
    return grey + np.float32(factor) * (image - grey)


def jpeg(image: Array, quality: float, _source: np.random.Generator) -> Array:
    """JPEG of this quality; greyscale and colour images only."""
    return compress(_pixels(image), round(quality)).astype(np.float32) / 255


def pixelate(image: Array, length: float, _source: np.random.Generator) -> Array:
    """Blocks of this many pixels a side show their mean; a pixel across an edge, a mixture."""
    height, width, _ = image.shape
    rows, columns = (_blocks(side, length * _scale(image)) for side in (height, width))
    averaged: Array = rows @ image.transpose(2, 0, 1) @ columns.T  # (C, H, W)
    return averaged.transpose(1, 2, 0)


def elastic(image: Array, distance: float, source: np.random.Generator) -> Array:
    """Pixels wander smoothly, up to about this many pixels."""
    height, width, _ = image.shape
    reach = distance * _scale(image)
    shifts = [reach * (2 * _smooth_field(image, source) - 1) for _ in range(2)]
    rows = np.clip(np.arange(height)[:, None] + shifts[0], 0, height - 1)
    columns = np.clip(np.arange(width)[None, :] + shifts[1], 0, width - 1)
    return _bilinear(image, rows, columns)


@dataclass(frozen=True)
class Kind:
    """A corruption, its strength at each severity, and the channel counts it takes (None: any)."""

    corrupt: Corrupt
    strengths: tuple[float, float, float, float, float]
    channels: tuple[int, ...] | None = None


KINDS: Mapping[str, Kind] = {
    "gaussian_noise": Kind(gaussian_noise, (0.04, 0.06, 0.09, 0.13, 0.18)),
    "shot_noise": Kind(shot_noise, (200, 100, 50, 25, 12)),
    "impulse_noise": Kind(impulse_noise, (0.015, 0.03, 0.05, 0.08, 0.12)),
    "gaussian_blur": Kind(gaussian_blur, (0.5, 0.7, 0.9, 1.2, 1.6)),
    "motion_blur": Kind(motion_blur, (1.5, 2.2, 3, 4.2, 6)),
    "fog": Kind(fog, (0.15, 0.25, 0.35, 0.45, 0.6)),
    "brightness": Kind(brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": Kind(contrast, (0.75, 0.6, 0.45, 0.3, 0.2)),
    "saturate": Kind(saturate, (1.4, 1.8, 2.3, 3, 4), channels=(3,)),
    "jpeg": Kind(jpeg, (75, 50, 30, 18, 10), channels=JPEG_CHANNELS),
    "pixelate": Kind(pixelate, (1.3, 1.6, 2, 2.5, 3.3)),
    "elastic": Kind(elastic, (1, 1.5, 2.2, 3.2, 4.5)),
}


def _scale(image: Array) -> float:
    """What lengths are multiplied by: between equal in pixels and equal as a share of the side."""
    height, width, _ = image.shape
    return math.sqrt(max(1, min(height, width) / USUAL_SIDE))


def _pixels(image: Array) -> Pixels:
    return (image.clip(0, 1) * 255).round().astype(np.uint8)


def _blocks(side: int, length: float) -> Array:
    """The matrix (side, side) that takes every pixel to the mean of the blocks it lies in."""
    edges = np.append(np.arange(0, side, length), side)
    pixels = np.arange(side)[:, None]
    inside = np.minimum(pixels + 1, edges[1:]) - np.maximum(pixels, edges[:-1])
    shares = inside.clip(0).astype(np.float32)  # (pixel, block)
    mixing: Array = shares @ (shares / shares.sum(axis=0)).T
    return mixing


def _smooth_field(image: Array, source: np.random.Generator) -> Array:
    """Clouds (H, W) in [0, 1]: random grids of 3, 5 and 9 points a side, each half as strong."""
    height, width, _ = image.shape
    field = np.zeros((height, width), dtype=np.float32)
    for octave in (1, 2, 3):
        grid = source.random((2**octave + 1,) * 2, dtype=np.float32)
        cloud = Image.fromarray(grid).resize((width, height), Image.Resampling.BILINEAR)
        field += np.asarray(cloud) * 0.5**octave
    return field / np.float32(0.875)


def _bilinear(image: Array, rows: Array, columns: Array) -> Array:
    """The image at fractional positions within it, each (H, W)."""
    top = np.minimum(rows.astype(int), image.shape[0] - 2)
    left = np.minimum(columns.astype(int), image.shape[1] - 2)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    upper = (1 - right) * image[top, left] + right * image[top, left + 1]
    lower = (1 - right) * image[top + 1, left] + right * image[top + 1, left + 1]
    blended: Array = (1 - down) * upper + down * lower
    return blended
