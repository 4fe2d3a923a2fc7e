"""The digits set that scikit-learn ships, as the client packs it: uint8 images, a fixed split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEED = 7
TEST_EXAMPLES = 360
MEAN, STD = (0.3053,), (0.3760,)
SHAPE = (1, 8, 8)
CLASSES = 10


@dataclass(frozen=True)
class Digits:
    """Images uint8 (N, 8, 8, 1) and labels int64 (N,), shuffled once and split."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]

    def save(self, path: Path) -> Path:
        """Write the `.npz` that `POST /v1/datasets` takes."""
        arrays: dict[str, Any] = dict(vars(self))
        np.savez_compressed(path, **arrays)
        return path


def load_digits() -> Digits:
    """Read the 1,797 handwritten digits; grey values 0..16 become 0..255."""
    try:
        from sklearn import datasets  # noqa: PLC0415  (only the demo needs it)
    except ImportError as error:
        raise SystemExit("the demo needs scikit-learn: pip install -e '.[demo]'") from error
    bunch = datasets.load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int64)
    order = np.random.default_rng(SEED).permutation(len(labels))
    test, train = order[:TEST_EXAMPLES], order[TEST_EXAMPLES:]
    return Digits(images[train], labels[train], images[test], labels[test])
