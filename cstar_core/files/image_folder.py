"""Read an untrusted zip of class folders of PNG and JPEG images; nothing is unpacked to disk."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from cstar_core.errors import InvalidDataset
from cstar_core.files.archives import check_archive
from cstar_core.files.arrays import (
    DatasetLimits,
    Images,
    LabelledImages,
    RawDataset,
    check_dataset,
    check_images,
)
from cstar_core.files.listing import listing, shown
from cstar_core.files.npz import check_container

_SPLITS = ("train", "test")
_SUFFIXES = (".png", ".jpg", ".jpeg")
_GREY_MODES = ("1", "L")
_COLOUR_MODES = ("RGB", "RGBA", "P", "LA", "PA", "CMYK", "YCbCr")
# What Pillow and zipfile raise on malformed bytes; a decompression bomb is one of them.
_MALFORMED = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    SyntaxError,
    EOFError,
    RuntimeError,
    MemoryError,
    OverflowError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


@dataclass(frozen=True)
class _Picture:
    """One image file: its split ("train", "test" or ""), its class and its archive entry."""

    split: str
    label: str
    entry: zipfile.ZipInfo


def read_image_folder_zip(path: Path | str, *, limits: DatasetLimits | None = None) -> RawDataset:
    """Images in folders named after their class, as in `cat/1.png` or `train/cat/1.png`.

    Classes are numbered by the order of their names. With top-level folders `train` and `test`
    the split is taken from them; one folder around everything is ignored. Images are grey (C = 1)
    if all of them are, and RGB otherwise; an alpha channel is dropped. Raises `InvalidDataset` with
    one of the codes `empty_file`, `unknown_format`, `truncated_file`, `unsafe_archive`,
    `too_large`, `unexpected_layout`, `unsupported_image`, `damaged_image`, `image_sizes_differ`,
    and those of `check_dataset`.
    """
    path, limits = Path(path), limits or DatasetLimits()
    check_container(path, limits=limits)
    entries = check_archive(path, limits=limits.archive, error=InvalidDataset)
    pictures = _pictures(entries)
    names = tuple(sorted({picture.label for picture in pictures}))
    with zipfile.ZipFile(path) as archive:
        images = _stack(archive, pictures, limits=limits)
    raw = _as_dataset(pictures, images, names)
    check_dataset(raw)
    return raw


def _pictures(entries: Sequence[zipfile.ZipInfo]) -> list[_Picture]:
    files = sorted((tuple(entry.filename.split("/")), entry) for entry in entries if _counts(entry))
    for _, entry in files:
        if not entry.filename.lower().endswith(_SUFFIXES):
            raise InvalidDataset(
                f"{shown(entry.filename)} is not a PNG or JPEG file; leave such files out.",
                code="unsupported_image",
            )
    paths = _without_wrapper([parts for parts, _ in files])
    split = bool(paths) and all(len(parts) == 3 and parts[0] in _SPLITS for parts in paths)
    if not paths or not (split or all(len(parts) == 2 for parts in paths)):
        found = listing(sorted({parts[0] for parts in paths}))
        raise InvalidDataset(
            "Put the images into one folder for each class, as in cat/1.png, or into train/cat/ "
            f"and test/cat/. The archive has at its top: {found}.",
            code="unexpected_layout",
        )
    return [
        _Picture(parts[0] if split else "", parts[-2], entry)
        for parts, (_, entry) in zip(paths, files, strict=True)
    ]


def _counts(entry: zipfile.ZipInfo) -> bool:
    """Whether an entry is a file the user put there, and not one of their operating system."""
    hidden = any(part.startswith((".", "__MACOSX")) for part in entry.filename.split("/"))
    return not (entry.is_dir() or hidden or entry.filename.endswith("Thumbs.db"))


def _without_wrapper(paths: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Drop one folder that holds everything, as long as class folders remain."""
    wrapped = len({parts[0] for parts in paths}) == 1 and all(len(parts) > 2 for parts in paths)
    return [parts[1:] for parts in paths] if wrapped else paths


def _stack(
    archive: zipfile.ZipFile, pictures: Sequence[_Picture], *, limits: DatasetLimits
) -> Images:
    """All images (N, H, W, C), the memory for them taken once the first one is known."""
    first = _decode(archive, pictures[0].entry, limits=limits)
    check_images("images", (len(pictures), *first.shape[:2], 3), limits=limits)
    stacked = np.empty((len(pictures), *first.shape[:2], 3), dtype=np.uint8)
    grey = True
    for row, picture in enumerate(pictures):
        image = _decode(archive, picture.entry, limits=limits)
        if image.shape[:2] != first.shape[:2]:
            raise InvalidDataset(
                f"{shown(pictures[0].entry.filename)} is {first.shape[:2]} and "
                f"{shown(picture.entry.filename)} is {image.shape[:2]} (height, width); "
                "resize all images to one size.",
                code="image_sizes_differ",
            )
        stacked[row] = image
        grey = grey and image.shape[2] == 1
    return np.ascontiguousarray(stacked[..., :1]) if grey else stacked


def _decode(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, *, limits: DatasetLimits) -> Images:
    """One image (H, W, 1) or (H, W, 3)."""
    if entry.file_size > limits.max_image_bytes:
        raise InvalidDataset(
            f"{shown(entry.filename)} has {entry.file_size} bytes; at most "
            f"{limits.max_image_bytes} are read.",
            code="too_large",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            content = io.BytesIO(archive.read(entry))
            with Image.open(content, formats=("PNG", "JPEG")) as image:
                _check_picture(entry.filename, image, limits=limits)
                mode = "L" if image.mode in _GREY_MODES else "RGB"
                pixels = np.asarray(image.convert(mode), dtype=np.uint8)
    except _MALFORMED as failure:
        raise InvalidDataset(
            f"{shown(entry.filename)} is no readable PNG or JPEG image ({shown(str(failure))}); "
            "save it again or leave it out.",
            code="damaged_image",
        ) from failure
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _check_picture(name: str, image: Image.Image, *, limits: DatasetLimits) -> None:
    """The size and mode in the image's header, before its pixels are decoded."""
    if max(image.size) > limits.max_side:
        raise InvalidDataset(
            f"{shown(name)} is {image.size} pixels; at most {limits.max_side} a side are read.",
            code="too_large",
        )
    if image.mode not in (*_GREY_MODES, *_COLOUR_MODES):
        raise InvalidDataset(
            f"{shown(name)} has the mode {image.mode}; save it with 8 bits a channel.",
            code="unsupported_image",
        )


def _as_dataset(pictures: Sequence[_Picture], images: Images, names: tuple[str, ...]) -> RawDataset:
    numbers = {name: number for number, name in enumerate(names)}
    labels = np.array([numbers[picture.label] for picture in pictures], dtype=np.int64)
    test = np.array([picture.split == "test" for picture in pictures])
    if not test.any():
        return RawDataset(train=LabelledImages(images, labels), class_names=names)
    return RawDataset(
        train=LabelledImages(images[~test], labels[~test]),
        test=LabelledImages(images[test], labels[test]),
        class_names=names,
    )
