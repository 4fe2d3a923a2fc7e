"""CIFAR-10 from a folder, in either of two formats that hold no pickles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cstar_core.files.arrays import DatasetArrays

CLASSES = 10
SIDE = 32
MOSAICS = {"train": 25, "test": 5}
BINARY = {
    "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    "test": ("test_batch.bin",),
}
RECORD = 1 + 3 * SIDE * SIDE  # bytes: a label, then the red, green and blue planes

Split = tuple[NDArray[np.uint8], NDArray[np.int64]]


def load(folder: Path) -> DatasetArrays:
    """Return CIFAR-10 as uint8 (N, 32, 32, 3) with int64 labels.

    `folder` holds either lossless mosaics (`train_00.webp` ..., `labels.npz`) or the official
    binary version (`data_batch_1.bin` ..., cs.toronto.edu/~kriz/cifar.html). Raises
    FileNotFoundError when it holds neither.
    """
    if (folder / "labels.npz").exists():
        read = _mosaics
    elif (folder / BINARY["test"][0]).exists():
        read = _binary
    else:
        raise FileNotFoundError(
            f"{folder} holds neither labels.npz with its mosaics nor data_batch_1.bin ...; give "
            "the folder of the binary version of CIFAR-10 (the Python version is pickled and is "
            "not read)"
        )
    (train_images, train_labels), (test_images, test_labels) = (
        read(folder, split) for split in ("train", "test")
    )
    return DatasetArrays(
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        num_classes=CLASSES,
    )


def _mosaics(folder: Path, split: str) -> Split:
    names = [f"{split}_{number:02d}.webp" for number in range(MOSAICS[split])]
    images = np.concatenate([_tiles(folder / name) for name in names])
    with np.load(folder / "labels.npz", allow_pickle=False) as labels:
        return images, labels[f"{split}_labels"].astype(np.int64)


def _tiles(path: Path) -> NDArray[np.uint8]:
    """Cut a mosaic of 32 x 32 tiles, row by row."""
    mosaic = np.asarray(Image.open(path).convert("RGB"))
    rows, columns = mosaic.shape[0] // SIDE, mosaic.shape[1] // SIDE
    grid = mosaic.reshape(rows, SIDE, columns, SIDE, 3).swapaxes(1, 2)
    return grid.reshape(-1, SIDE, SIDE, 3)


def _binary(folder: Path, split: str) -> Split:
    content = b"".join((folder / name).read_bytes() for name in BINARY[split])
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, RECORD)
    planes = records[:, 1:].reshape(-1, 3, SIDE, SIDE)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), records[:, 0].astype(np.int64)
