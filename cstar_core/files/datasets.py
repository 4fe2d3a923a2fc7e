"""Data sets: read what was uploaded, split it where needed, keep it in one canonical file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cstar_core.errors import InvalidDataset
from cstar_core.files.arrays import (
    DatasetArrays,
    DatasetLimits,
    Images,
    LabelledImages,
    RawDataset,
    check_dataset,
    highest_label,
)
from cstar_core.files.image_folder import read_image_folder_zip
from cstar_core.files.npz import CLASS_NAMES, SPLIT_KEYS, read_npz
from cstar_core.files.stratified import hold_out

__all__ = [
    "DatasetArrays",
    "DatasetLimits",
    "LabelledImages",
    "RawDataset",
    "as_tensors",
    "hold_out",
    "load_dataset",
    "read_image_folder_zip",
    "read_npz",
    "split",
    "write_dataset",
]


def split(raw: RawDataset, *, seed: int, test_fraction: float = 0.2) -> DatasetArrays:
    """The data set with its own test split, or with a stratified one of `test_fraction`.

    `num_classes` is one more than the highest label, or the number of class names if there are
    more. Raises `InvalidDataset` (those of `check_dataset`, `too_few_examples`).
    """
    check_dataset(raw)
    train, test = raw.train, raw.test
    if test is None:
        kept, apart = hold_out(train.labels, seed=seed, fraction=test_fraction)
        test = LabelledImages(train.images[apart], train.labels[apart])
        train = LabelledImages(train.images[kept], train.labels[kept])
    return DatasetArrays(
        train_images=train.images,
        train_labels=train.labels,
        test_images=test.images,
        test_labels=test.labels,
        num_classes=max(highest_label(raw) + 1, len(raw.class_names or ())),
        class_names=raw.class_names,
    )


def write_dataset(arrays: DatasetArrays, path: Path | str) -> None:
    """Write the canonical `.npz`: uncompressed, without pickles; equal arrays give equal bytes."""
    named = {key: getattr(arrays, key) for key in SPLIT_KEYS}
    if arrays.class_names is not None:
        named[CLASS_NAMES] = np.array(arrays.class_names, dtype=np.str_)
    with Path(path).open("wb") as stream:
        np.savez(stream, allow_pickle=False, **named)


def load_dataset(path: Path | str, *, limits: DatasetLimits | None = None) -> DatasetArrays:
    """Read what `write_dataset` wrote, with all checks of `read_npz`.

    Raises `InvalidDataset`, `missing_arrays` when the file has no test split.
    """
    raw = read_npz(path, limits=limits)
    if raw.test is None:
        raise InvalidDataset(
            f"The file has no test split; it needs {', '.join(SPLIT_KEYS)}.", code="missing_arrays"
        )
    return split(raw, seed=0)


def as_tensors(images: Images) -> Tensor:
    """Images uint8 (N, H, W, C) as float32 (N, C, H, W) in [0, 1], contiguous."""
    channels_first = torch.from_numpy(images).permute(0, 3, 1, 2)
    return channels_first.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
