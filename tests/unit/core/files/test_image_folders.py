"""Reading data sets from zipped class folders."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cstar_core.errors import InvalidDataset
from cstar_core.files.datasets import DatasetLimits, read_image_folder_zip

Zipped = Callable[..., Path]


def picture(
    value: int = 0, *, mode: str = "RGB", size: tuple[int, int] = (5, 4), kind: str = "PNG"
) -> bytes:
    buffer = io.BytesIO()
    colour = value if len(Image.new(mode, (1, 1)).getbands()) == 1 else None
    image = Image.new(mode, size, colour) if colour is not None else Image.new("RGB", size)
    if colour is None:
        image.paste((value, value, value), (0, 0, *size))
    image.convert(mode).save(buffer, kind)
    return buffer.getvalue()


def folders(**changes: bytes) -> dict[str, bytes]:
    files = {"dog/1.png": picture(10), "cat/1.png": picture(20), "cat/2.png": picture(30)}
    return files | changes


def refusal(path: Path, limits: DatasetLimits | None = None) -> InvalidDataset:
    with pytest.raises(InvalidDataset) as caught:
        read_image_folder_zip(path, limits=limits)
    return caught.value


def test_classes_are_numbered_by_name_and_images_ordered_by_path(zipped: Zipped) -> None:
    raw = read_image_folder_zip(zipped(folders()))
    assert raw.class_names == ("cat", "dog")
    assert raw.train.labels.tolist() == [0, 0, 1]
    assert raw.train.images.shape == (3, 4, 5, 3)
    assert raw.train.images[:, 0, 0, 0].tolist() == [20, 30, 10]
    assert raw.test is None


def test_train_and_test_folders_are_the_split(zipped: Zipped) -> None:
    files = {f"train/{name}": content for name, content in folders().items()}
    raw = read_image_folder_zip(zipped(files | {"test/dog/9.png": picture(90)}))
    assert raw.test is not None
    assert raw.train.labels.tolist() == [0, 0, 1]
    assert raw.test.labels.tolist() == [1]
    assert raw.test.images[0, 0, 0, 0] == 90


@pytest.mark.parametrize("wrapper", ["pets", "train"])
def test_one_folder_around_the_classes_is_ignored(zipped: Zipped, wrapper: str) -> None:
    raw = read_image_folder_zip(zipped({f"{wrapper}/{name}": c for name, c in folders().items()}))
    assert raw.class_names == ("cat", "dog")
    assert raw.test is None


def test_one_folder_around_the_splits_is_ignored(zipped: Zipped) -> None:
    files = {f"pets/train/{name}": content for name, content in folders().items()}
    raw = read_image_folder_zip(zipped(files | {"pets/test/dog/9.png": picture()}))
    assert raw.test is not None


def test_files_of_the_operating_system_are_ignored(zipped: Zipped) -> None:
    extra = {
        "__MACOSX/cat/._1.png": b"x",
        "cat/.DS_Store": b"x",
        "dog/Thumbs.db": b"x",
        "dog/": b"",
    }
    assert len(read_image_folder_zip(zipped(folders() | extra)).train.labels) == 3


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_images_have_one_channel(zipped: Zipped, mode: str) -> None:
    files = {name: picture(1, mode=mode) for name in folders()}
    assert read_image_folder_zip(zipped(files)).train.images.shape == (3, 4, 5, 1)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "LA"])
def test_mixed_images_become_rgb(zipped: Zipped, mode: str) -> None:
    files = folders(**{"cat/3.png": picture(77, mode=mode)})
    assert read_image_folder_zip(zipped(files)).train.images.shape == (4, 4, 5, 3)


def test_grey_value_is_repeated_over_the_channels(zipped: Zipped) -> None:
    files = folders(**{"cat/3.png": picture(77, mode="L")})
    raw = read_image_folder_zip(zipped(files))
    assert np.array_equal(np.unique(raw.train.images[2]), [77])


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_is_read(zipped: Zipped, mode: str) -> None:
    files = {"a/1.JPG": picture(9, mode=mode, kind="JPEG"), "b/1.jpeg": picture(9, kind="JPEG")}
    assert len(read_image_folder_zip(zipped(files)).train.labels) == 2


REFUSED: dict[str, tuple[str, Mapping[str, bytes]]] = {
    "other size": ("image_sizes_differ", folders(**{"cat/3.png": picture(size=(6, 4))})),
    "one class": ("too_few_classes", {"cat/1.png": picture(), "cat/2.png": picture()}),
    "no folders": ("unexpected_layout", {"1.png": picture(), "2.png": picture()}),
    "too deep": ("unexpected_layout", folders(**{"cat/big/3.png": picture()})),
    "other split name": (
        "unexpected_layout",
        {f"{split}/{name}": c for split in ("train", "val") for name, c in folders().items()},
    ),
    "nothing": ("unexpected_layout", {"cat/": b""}),
    "text": ("unsupported_image", folders(**{"cat/notes.txt": b"hello"})),
    "GIF": ("unsupported_image", folders(**{"cat/3.gif": picture(kind="GIF")})),
    "16 bit": ("unsupported_image", folders(**{"cat/3.png": picture(9, mode="I;16")})),
    "GIF by another name": ("damaged_image", folders(**{"cat/3.png": picture(kind="GIF")})),
    "cut short": ("damaged_image", folders(**{"cat/3.png": picture()[:-30]})),
    "cut header": ("damaged_image", folders(**{"cat/3.png": picture()[:20]})),
    "empty image": ("damaged_image", folders(**{"cat/3.png": b""})),
    "traversal": ("unsafe_archive", folders(**{"../cat/3.png": picture()})),
}


@pytest.mark.parametrize(("code", "files"), REFUSED.values(), ids=REFUSED.keys())
def test_unusable_folder_is_refused_with_its_code(
    zipped: Zipped, code: str, files: Mapping[str, bytes]
) -> None:
    assert refusal(zipped(files)).code == code


def test_images_of_two_sizes_are_refused_naming_both(zipped: Zipped) -> None:
    message = str(refusal(zipped(folders(**{"cat/3.png": picture(size=(6, 4))}))))
    assert "cat/1.png is (4, 5)" in message
    assert "cat/3.png is (4, 6)" in message


@pytest.mark.parametrize(
    "limits",
    [
        DatasetLimits(max_side=4),
        DatasetLimits(max_image_bytes=20),
        DatasetLimits(max_array_bytes=100),
        DatasetLimits(max_entries=2),
        DatasetLimits(max_bytes=50),
    ],
    ids=["side", "image", "unpacked", "entries", "file"],
)
def test_folder_over_a_limit_is_refused(zipped: Zipped, limits: DatasetLimits) -> None:
    assert refusal(zipped(folders()), limits).code == "too_large"


def test_images_that_unpack_to_too_much_are_refused(zipped: Zipped) -> None:
    files = {f"{label}/1.png": picture(size=(60, 60)) for label in "ab"}
    path = zipped(files)
    unpacked = sum(map(len, files.values()))
    assert unpacked < 20_000
    assert refusal(path, DatasetLimits(max_array_bytes=20_000)).code == "too_large"


def png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header declares a size and whose data is one byte."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", check)

    header = struct.pack(">2L5B", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("side", [2_000, 10_000, 60_000])
def test_image_that_claims_huge_size_is_refused_before_decoding(zipped: Zipped, side: int) -> None:
    error = refusal(zipped(folders(**{"cat/3.png": png_claiming(side, side)})))
    assert error.code in ("too_large", "damaged_image")


def test_pillow_pixel_limit_is_an_error(zipped: Zipped, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 15)
    error = refusal(zipped(folders()))
    assert error.code == "damaged_image"
    assert "decompression bomb" in str(error)


def test_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    for code, content in (("empty_file", b""), ("unknown_format", b"GIF89a")):
        (tmp_path / "d.zip").write_bytes(content)
        assert refusal(tmp_path / "d.zip").code == code


def test_changed_image_is_refused(zipped: Zipped) -> None:
    path = zipped(folders())
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 6] ^= 0xFF
    path.write_bytes(bytes(content))
    assert refusal(path).code == "damaged_image"


def test_compressed_archive_is_read(zipped: Zipped) -> None:
    path = zipped(folders(), method=zipfile.ZIP_DEFLATED)
    assert len(read_image_folder_zip(path).train.labels) == 3
