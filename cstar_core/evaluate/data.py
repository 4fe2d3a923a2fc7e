"""The images a network is judged on: those that somebody set apart for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cstar_core.errors import InvalidDataset
from cstar_core.evaluation.examples import Examples
from cstar_core.files.arrays import DatasetArrays, Images, Labels
from cstar_core.files.datasets import RawDataset, read_image_folder_zip, read_npz

__all__ = ["Evaluated", "read_evaluated"]


@dataclass(frozen=True, eq=False)
class Evaluated:
    """Images uint8 (N, H, W, C) with labels (N,); `sha256` is the digest of the whole split.

    `whole` says that the file had one split, all of which is used.
    """

    images: Images
    labels: Labels
    sha256: str
    class_names: tuple[str, ...] | None = None
    whole: bool = False

    @classmethod
    def of(cls, arrays: DatasetArrays, *, whole: bool = False) -> Evaluated:
        """The test split of a data set."""
        names = arrays.class_names
        return cls(arrays.test_images, arrays.test_labels, arrays.sha256, names, whole)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        height, width, channels = self.images.shape[1:]
        return channels, height, width

    def examples(self, device: torch.device) -> Examples:
        """Images (N, C, H, W) and labels on a device."""
        pixels = torch.as_tensor(self.images).permute(0, 3, 1, 2).contiguous()
        return Examples(pixels.to(device), torch.as_tensor(self.labels).long().to(device))

    def check_classes(self, classes: int) -> None:
        """Raise InvalidDataset when a label is none of a network's classes."""
        highest = int(self.labels.max())
        if highest >= classes:
            raise InvalidDataset(
                f"the images have the label {highest}, the network the classes 0..{classes - 1}",
                code="labels_outside_classes",
            )


def read_evaluated(path: Path) -> Evaluated:
    """The test images of an `.npz` or a zip of class folders, as the service takes them.

    The test split where the file has one; otherwise every image, for whoever names a file to judge
    a network on means all of it. Raises InvalidDataset.
    """
    if not path.is_file():
        raise InvalidDataset(f"there is no file {path}")
    raw = read_image_folder_zip(path) if path.suffix.lower() == ".zip" else read_npz(path)
    return Evaluated.of(_as_test_split(raw), whole=raw.test is None)


def _as_test_split(raw: RawDataset) -> DatasetArrays:
    test = raw.train if raw.test is None else raw.test
    train: dict[str, Any] = {"train_images": raw.train.images, "train_labels": raw.train.labels}
    if raw.test is None:  # nothing is left to train on
        train = {name: array[:0] for name, array in train.items()}
    return DatasetArrays(
        **train,
        test_images=test.images,
        test_labels=test.labels,
        num_classes=int(np.max(test.labels)) + 1,
        class_names=raw.class_names,
    )
