"""Read an untrusted `.npz`: the header of every array is checked before anything is allocated.

Format: a zip of `.npy` files (NumPy documentation, "numpy.lib.format", versions 1.0 and 2.0).
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from cstar_core.errors import InvalidDataset
from cstar_core.files.archives import ZIP_MAGIC, check_archive
from cstar_core.files.arrays import (
    DatasetLimits,
    LabelledImages,
    RawDataset,
    check_dataset,
    check_images,
    check_labels,
)
from cstar_core.files.listing import listing

SPLIT_KEYS = ("train_images", "train_labels", "test_images", "test_labels")
WHOLE_KEYS = ("images", "labels")
CLASS_NAMES = "class_names"

# What NumPy and zipfile raise on malformed bytes.
_MALFORMED = (
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    OSError,
    RuntimeError,
    MemoryError,
    OverflowError,
    SyntaxError,
    TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class _Header:
    """What an array says of itself before its data."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]


def read_npz(path: Path | str, *, limits: DatasetLimits | None = None) -> RawDataset:
    """The arrays of a data set: the four of `SPLIT_KEYS`, or the two of `WHOLE_KEYS`.

    `class_names`, an array of strings, may be there too; anything else is ignored. Raises
    `InvalidDataset` with one of the codes `empty_file`, `unknown_format`, `truncated_file`,
    `damaged_file`, `unsafe_archive`, `unsafe_array`, `too_large`, `missing_arrays`, `wrong_dtype`,
    `wrong_shape`, and those of `check_dataset`.
    """
    path, limits = Path(path), limits or DatasetLimits()
    check_container(path, limits=limits)
    entries = {
        entry.filename.removesuffix(".npy"): entry
        for entry in check_archive(path, limits=limits.archive, error=InvalidDataset)
    }
    keys = _keys(entries)
    with zipfile.ZipFile(path) as archive:
        reader = _Reader(archive, entries, limits)
        splits = [reader.pair(*pair) for pair in zip(keys[::2], keys[1::2], strict=True)]
        names = reader.class_names() if CLASS_NAMES in entries else None
    raw = RawDataset(
        train=splits[0], test=splits[1] if len(splits) > 1 else None, class_names=names
    )
    check_dataset(raw)
    return raw


def check_container(path: Path, *, limits: DatasetLimits) -> None:
    """Raise `InvalidDataset` (`empty_file`, `too_large`, `unknown_format`) unless it is a zip."""
    size = path.stat().st_size
    if size == 0:
        raise InvalidDataset("The file is empty; upload it again.", code="empty_file")
    if size > limits.max_bytes:
        raise InvalidDataset(
            f"The file has {size} bytes; at most {limits.max_bytes} are read.", code="too_large"
        )
    with path.open("rb") as stream:
        if stream.read(4) != ZIP_MAGIC:
            raise InvalidDataset(
                "The file is no zip archive; upload an .npz written by numpy.savez, or a zip of "
                "class folders.",
                code="unknown_format",
            )


def _keys(entries: Mapping[str, zipfile.ZipInfo]) -> tuple[str, ...]:
    for keys in (SPLIT_KEYS, WHOLE_KEYS):
        if all(key in entries for key in keys):
            return keys
    raise InvalidDataset(
        f"The file holds the arrays {listing(entries)}; it needs {', '.join(SPLIT_KEYS)}, "
        f"or {' and '.join(WHOLE_KEYS)}.",
        code="missing_arrays",
    )


@dataclass(frozen=True)
class _Reader:
    """The arrays of one open archive."""

    archive: zipfile.ZipFile
    entries: Mapping[str, zipfile.ZipInfo]
    limits: DatasetLimits

    def pair(self, images: str, labels: str) -> LabelledImages:
        """Images and labels; the headers of both are checked before the data of either is read."""
        image_header, label_header = self._header(images), self._header(labels)
        _require(images, image_header.dtype == np.uint8, image_header, "uint8 in 0..255")
        check_images(images, image_header.shape, limits=self.limits)
        _require(labels, label_header.dtype.kind in "iu", label_header, "integers")
        if len(label_header.shape) != 1:
            raise InvalidDataset(
                f"{labels} has shape {label_header.shape}; labels are (N,).", code="wrong_shape"
            )
        return LabelledImages(
            self._array(images), check_labels(labels, self._array(labels), limits=self.limits)
        )

    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, a one-dimensional array of strings."""
        header = self._header(CLASS_NAMES)
        _require(CLASS_NAMES, header.dtype.kind == "U", header, "strings")
        if len(header.shape) != 1 or header.shape[0] > self.limits.max_classes:
            raise InvalidDataset(
                f"{CLASS_NAMES} has shape {header.shape}; give one name for each class.",
                code="wrong_shape",
            )
        return tuple(str(name) for name in self._array(CLASS_NAMES))

    def _header(self, key: str) -> _Header:
        try:
            with self.archive.open(self.entries[key]) as stream:
                header = _read_header(stream)
                start = stream.tell()
        except _MALFORMED as failure:
            raise _damaged(key, failure) from failure
        if header.dtype.hasobject:
            raise InvalidDataset(
                f"{key} holds Python objects, which are never loaded; save plain numbers.",
                code="unsafe_array",
            )
        declared = prod(header.shape) * header.dtype.itemsize
        if declared > self.limits.max_array_bytes:
            raise InvalidDataset(
                f"{key} has {declared} bytes; at most {self.limits.max_array_bytes} are read.",
                code="too_large",
            )
        if min(header.shape, default=0) < 0 or start + declared != self.entries[key].file_size:
            raise _damaged(key, ValueError("its header does not agree with its size"))
        return header

    def _array(self, key: str) -> npt.NDArray[Any]:
        """The data of an array whose header has been checked, C-contiguous."""
        try:
            with self.archive.open(self.entries[key]) as stream:
                array: npt.NDArray[Any] = npy.read_array(stream, allow_pickle=False)
        except _MALFORMED as failure:
            raise _damaged(key, failure) from failure
        return np.ascontiguousarray(array)


def _read_header(stream: IO[bytes]) -> _Header:
    version = npy.read_magic(stream)
    if version == (1, 0):
        return _Header(*npy.read_array_header_1_0(stream))
    if version == (2, 0):
        return _Header(*npy.read_array_header_2_0(stream))
    raise ValueError(f"version {version} of the .npy format is not read")


def _require(key: str, holds: bool, header: _Header, wanted: str) -> None:
    if not holds:
        raise InvalidDataset(
            f"{key} has dtype {header.dtype}; it must hold {wanted}. Convert it and save again.",
            code="wrong_dtype",
        )


def _damaged(key: str, failure: BaseException) -> InvalidDataset:
    return InvalidDataset(
        f"{key} cannot be read ({listing([str(failure)])}); write the file again with numpy.savez.",
        code="damaged_file",
    )
