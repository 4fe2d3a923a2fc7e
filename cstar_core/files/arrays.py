"""Images and labels as plain arrays, and what must be true of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from cstar_core.errors import InvalidDataset
from cstar_core.files.archives import ArchiveLimits
from cstar_core.files.listing import shown

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class DatasetLimits:
    """How large an uploaded data set may be: bytes of the file and unpacked, pixels, classes."""

    max_bytes: int = 4 * 2**30
    max_array_bytes: int = 4 * 2**30
    max_side: int = 1024
    max_classes: int = 10_000
    max_image_bytes: int = 16 * 2**20
    max_entries: int = 500_000

    @property
    def archive(self) -> ArchiveLimits:
        """The same limits, for the zip archive around the data."""
        return ArchiveLimits(
            max_entries=self.max_entries,
            max_total_bytes=self.max_array_bytes,
            max_directory_bytes=self.max_entries * 256,
        )


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images uint8 (N, H, W, C) with C 1 or 3, and labels int64 (N,) from 0."""

    images: Images
    labels: Labels


@dataclass(frozen=True, eq=False, kw_only=True)
class RawDataset:
    """A data set as it was uploaded; `test` is None where the service is to split."""

    train: LabelledImages
    test: LabelledImages | None = None
    class_names: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class DatasetArrays:
    """A validated data set: images uint8 (N, H, W, C), labels int64 (N,) below `num_classes`."""

    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels
    num_classes: int
    class_names: tuple[str, ...] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image, the order in which networks take it."""
        height, width, channels = self.train_images.shape[1:]
        return (channels, height, width)

    @cached_property
    def sha256(self) -> str:
        """Digest of the four arrays: shapes, then little-endian bytes; the same everywhere."""
        digest = hashlib.sha256()
        for images, labels in (
            (self.train_images, self.train_labels),
            (self.test_images, self.test_labels),
        ):
            digest.update(repr(images.shape).encode())
            digest.update(np.ascontiguousarray(images).reshape(-1).data)
            digest.update(np.ascontiguousarray(labels, dtype="<i8").data)
        return digest.hexdigest()


def check_images(name: str, shape: tuple[int, ...], *, limits: DatasetLimits) -> None:
    """Raise `InvalidDataset` (`wrong_shape`, `too_large`) unless (N, H, W, C) can be read."""
    if len(shape) != 4 or shape[3] not in (1, 3) or min(shape[1:]) < 1:
        hint = _layout_hint(name, shape)
        raise InvalidDataset(
            f"{name} has shape {shape}; images are (N, H, W, C) with 1 or 3 channels{hint}.",
            code="wrong_shape",
        )
    if max(shape[1:3]) > limits.max_side or np.prod(shape, dtype=object) > limits.max_array_bytes:
        raise InvalidDataset(
            f"{name} has shape {shape}; at most {limits.max_side} pixels a side and "
            f"{limits.max_array_bytes} bytes are read. Resize the images or send fewer.",
            code="too_large",
        )


def _layout_hint(name: str, shape: tuple[int, ...]) -> str:
    if len(shape) == 3:
        return f" (for grey images: {name}[..., None])"
    if len(shape) == 4 and shape[1] in (1, 3):
        return f" ({name}.transpose(0, 2, 3, 1) moves the channels last)"
    return ""


def check_labels(name: str, labels: npt.NDArray[np.integer], *, limits: DatasetLimits) -> Labels:
    """Labels as int64. Raises `InvalidDataset` (`negative_labels`, `too_large`)."""
    if labels.size and int(labels.min()) < 0:
        raise InvalidDataset(
            f"{name} has the label {int(labels.min())}; number the classes from 0.",
            code="negative_labels",
        )
    if labels.size and int(labels.max()) >= limits.max_classes:
        raise InvalidDataset(
            f"{name} has the label {int(labels.max())}; labels lie in 0..{limits.max_classes - 1}.",
            code="too_large",
        )
    return labels.astype(np.int64)


def check_pair(name: str, pair: LabelledImages) -> None:
    """Raise `InvalidDataset` (`length_mismatch`, `empty_split`) unless each image has a label."""
    if len(pair.images) != len(pair.labels):
        raise InvalidDataset(
            f"{name} has {len(pair.images)} images and {len(pair.labels)} labels; "
            "give one label for each image.",
            code="length_mismatch",
        )
    if len(pair.labels) == 0:
        raise InvalidDataset(f"{name} has no examples; add some.", code="empty_split")


def check_dataset(raw: RawDataset) -> None:
    """Raise `InvalidDataset` unless both splits hold examples of one shape and several classes.

    Codes: `length_mismatch`, `empty_split`, `image_sizes_differ`, `too_few_classes`,
    `class_names_mismatch`.
    """
    check_pair("train", raw.train)
    if raw.test is not None:
        check_pair("test", raw.test)
        if raw.test.images.shape[1:] != raw.train.images.shape[1:]:
            raise InvalidDataset(
                f"Training images are {raw.train.images.shape[1:]} and test images "
                f"{raw.test.images.shape[1:]} (H, W, C); resize them to one shape.",
                code="image_sizes_differ",
            )
    if len(np.unique(raw.train.labels)) < 2:
        raise InvalidDataset(
            "All training examples have one label; at least two classes are needed.",
            code="too_few_classes",
        )
    highest = highest_label(raw)
    if raw.class_names is not None and len(raw.class_names) <= highest:
        raise InvalidDataset(
            f"There are {len(raw.class_names)} class names and the label {highest} "
            f"(last name: {shown(raw.class_names[-1]) if raw.class_names else 'none'}); "
            "name every class.",
            code="class_names_mismatch",
        )


def highest_label(raw: RawDataset) -> int:
    """The largest label of either split."""
    splits = (raw.train, raw.test)
    return max(int(split.labels.max()) for split in splits if split is not None)
