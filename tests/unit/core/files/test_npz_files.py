"""Reading data sets from .npz files: what is accepted, and the code of every refusal."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cstar_core.errors import InvalidDataset
from cstar_core.files.datasets import DatasetLimits, read_npz

Zipped = Callable[..., Path]


def images(count: int = 6, *shape: int) -> NDArray[np.uint8]:
    return np.arange(count * 48).reshape(count, *(shape or (4, 4, 3))).astype(np.uint8)


def labels(count: int = 6) -> NDArray[np.int64]:
    return np.arange(count) % 2


def four(**changes: Any) -> dict[str, Any]:
    arrays: dict[str, Any] = {
        "train_images": images(6),
        "train_labels": labels(6),
        "test_images": images(2),
        "test_labels": labels(2),
    }
    return {key: value for key, value in (arrays | changes).items() if value is not None}


def written(path: Path, arrays: dict[str, Any]) -> Path:
    np.savez(path, **arrays)
    return path


def refusal(path: Path, limits: DatasetLimits | None = None) -> InvalidDataset:
    with pytest.raises(InvalidDataset) as caught:
        read_npz(path, limits=limits)
    return caught.value


def test_four_arrays_are_read_as_a_split(tmp_path: Path) -> None:
    raw = read_npz(written(tmp_path / "d.npz", four()))
    assert raw.test is not None
    assert np.array_equal(raw.train.images, images(6))
    assert np.array_equal(raw.train.labels, labels(6))
    assert np.array_equal(raw.test.images, images(2))
    assert raw.class_names is None


def test_two_arrays_are_left_to_be_split(tmp_path: Path) -> None:
    raw = read_npz(written(tmp_path / "d.npz", {"images": images(), "labels": labels()}))
    assert raw.test is None
    assert len(raw.train.images) == 6


def test_compressed_file_is_read(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "d.npz", **four())
    assert len(read_npz(tmp_path / "d.npz").train.labels) == 6


def test_class_names_are_read(tmp_path: Path) -> None:
    raw = read_npz(written(tmp_path / "d.npz", four(class_names=["cat", "dog"])))
    assert raw.class_names == ("cat", "dog")


def test_other_arrays_are_ignored_and_never_unpickled(tmp_path: Path) -> None:
    extra = np.array([{"a": 1}], dtype=object)
    raw = read_npz(written(tmp_path / "d.npz", four(notes=extra)))
    assert len(raw.train.labels) == 6


@pytest.mark.parametrize("dtype", ["u1", "i2", "<i8", ">i4", "u8"])
def test_labels_of_any_integer_type_become_int64(tmp_path: Path, dtype: str) -> None:
    raw = read_npz(written(tmp_path / "d.npz", four(train_labels=labels().astype(dtype))))
    assert raw.train.labels.dtype == np.int64
    assert np.array_equal(raw.train.labels, labels())


def test_fortran_order_is_read(tmp_path: Path) -> None:
    raw = read_npz(written(tmp_path / "d.npz", four(train_images=np.asfortranarray(images()))))
    assert raw.train.images.flags.c_contiguous
    assert np.array_equal(raw.train.images, images())


REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "object images": ("unsafe_array", four(train_images=np.array([{}] * 6, dtype=object))),
    "object labels": ("unsafe_array", four(test_labels=np.array([{}] * 2, dtype=object))),
    "objects inside": ("unsafe_array", four(train_labels=np.zeros(6, dtype=[("a", object)]))),
    "object names": ("unsafe_array", four(class_names=np.array(["a", None], dtype=object))),
    "float images": ("wrong_dtype", four(train_images=images() / 255)),
    "float labels": ("wrong_dtype", four(train_labels=labels().astype(float))),
    "boolean labels": ("wrong_dtype", four(train_labels=labels().astype(bool))),
    "structured labels": ("wrong_dtype", four(train_labels=np.zeros(6, dtype=[("a", "i4")]))),
    "numbered names": ("wrong_dtype", four(class_names=np.arange(2))),
    "flat images": ("wrong_shape", four(train_images=images(6, 48))),
    "grey images": ("wrong_shape", four(train_images=images(6, 6, 8))),
    "channels first": ("wrong_shape", four(train_images=images(6, 3, 4, 4))),
    "two channels": ("wrong_shape", four(train_images=images(6, 4, 6, 2))),
    "no pixels": ("wrong_shape", four(train_images=np.zeros((6, 0, 4, 3), dtype=np.uint8))),
    "one-hot labels": ("wrong_shape", four(train_labels=np.eye(6, dtype=int))),
    "scalar labels": ("wrong_shape", four(train_labels=np.int64(3))),
    "nested names": ("wrong_shape", four(class_names=[["a"], ["b"]])),
    "too few labels": ("length_mismatch", four(train_labels=labels(5))),
    "too few test labels": ("length_mismatch", four(test_labels=labels(1))),
    "negative label": ("negative_labels", four(train_labels=labels() - 1)),
    "negative test label": ("negative_labels", four(test_labels=labels(2) - 1)),
    "huge label": ("too_large", four(train_labels=labels() * 10_000)),
    "no training examples": (
        "empty_split",
        four(train_images=images(6)[:0], train_labels=labels()[:0]),
    ),
    "no test examples": ("empty_split", four(test_images=images(6)[:0], test_labels=labels()[:0])),
    "one class": ("too_few_classes", four(train_labels=labels() * 0)),
    "other test size": ("image_sizes_differ", four(test_images=images(2, 2, 8, 3))),
    "too few names": ("class_names_mismatch", four(class_names=["cat"])),
    "no names": ("class_names_mismatch", four(class_names=np.array([], dtype=str))),
    "no test labels": ("missing_arrays", four(test_labels=None)),
    "other names": ("missing_arrays", {"x": images(), "y": labels()}),
}


@pytest.mark.parametrize(("code", "arrays"), REFUSED.values(), ids=REFUSED.keys())
def test_unusable_arrays_are_refused_with_their_code(
    tmp_path: Path, code: str, arrays: dict[str, Any]
) -> None:
    assert refusal(written(tmp_path / "d.npz", arrays)).code == code


def test_missing_arrays_are_refused_naming_those_found(tmp_path: Path) -> None:
    error = refusal(written(tmp_path / "d.npz", {"x": images(), "labels": labels()}))
    assert "x, labels" in str(error)


@pytest.mark.parametrize(
    ("shape", "hint"),
    [((6, 6, 8), r"train_images\[..., None\]"), ((6, 3, 4, 4), r"transpose\(0, 2, 3, 1\)")],
)
def test_usual_layouts_are_refused_with_the_way_out(
    tmp_path: Path, shape: tuple[int, ...], hint: str
) -> None:
    path = written(tmp_path / "d.npz", four(train_images=images(*shape)))
    with pytest.raises(InvalidDataset, match=hint):
        read_npz(path)


def npy(array: NDArray[Any], **header: Any) -> bytes:
    """An .npy file; a given header is written in place of the true one."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    if not header:
        return buffer.getvalue()
    text = repr({"descr": array.dtype.str, "fortran_order": False, "shape": array.shape} | header)
    data = array.tobytes()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + data


LYING: dict[str, tuple[str, bytes]] = {
    "gigantic shape": ("too_large", npy(images(), shape=(2**40, 2**20, 4, 3))),
    "larger than its data": ("damaged_file", npy(images(), shape=(7, 4, 4, 3))),
    "smaller than its data": ("damaged_file", npy(images(), shape=(5, 4, 4, 3))),
    "negative": ("damaged_file", npy(images(), shape=(-6, -4, 4, 3))),
    "not a tuple": ("damaged_file", npy(images(), shape=3)),
    "unknown dtype": ("damaged_file", npy(images(), descr="|z9")),
    "object dtype": ("unsafe_array", npy(images(), descr="|O")),
    "no array": ("damaged_file", b"something else"),
    "empty": ("damaged_file", b""),
    "version 9": ("damaged_file", b"\x93NUMPY\x09\x00" + bytes(100)),
    "cut header": ("damaged_file", npy(images())[:30]),
    "code in the header": ("damaged_file", b"\x93NUMPY\x01\x00\x10\x00__import__('os')"),
    "deep header": ("damaged_file", b"\x93NUMPY\x01\x00\x00\x20" + b"(" * 0x2000),
}


@pytest.mark.parametrize(("code", "content"), LYING.values(), ids=LYING.keys())
def test_lying_array_header_is_refused_before_anything_is_allocated(
    zipped: Zipped, code: str, content: bytes
) -> None:
    assert refusal(zipped({"images.npy": content, "labels.npy": npy(labels())})).code == code


def test_version_two_header_is_read(zipped: Zipped) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, images(), version=(2, 0))
    raw = read_npz(zipped({"images.npy": buffer.getvalue(), "labels.npy": npy(labels())}))
    assert np.array_equal(raw.train.images, images())


@pytest.mark.parametrize(
    ("code", "content"),
    [
        ("empty_file", b""),
        ("unknown_format", b"\x93NUMPY"),
        ("unknown_format", b"PK\x05\x06" + bytes(18)),
        ("truncated_file", b"PK\x03\x04"),
    ],
    ids=["empty", "npy", "empty zip", "cut"],
)
def test_file_that_is_no_archive_is_refused(tmp_path: Path, code: str, content: bytes) -> None:
    (tmp_path / "d.npz").write_bytes(content)
    assert refusal(tmp_path / "d.npz").code == code


def test_truncated_file_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "d.npz", four())
    path.write_bytes(path.read_bytes()[:-200])
    assert refusal(path).code == "truncated_file"


def test_changed_data_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "d.npz", four())
    content = path.read_bytes()
    path.write_bytes(content.replace(images().tobytes()[:40], bytes(40), 1))
    assert refusal(path).code == "damaged_file"


def test_traversal_name_is_refused(zipped: Zipped) -> None:
    path = zipped({"images.npy": npy(images()), "labels.npy": npy(labels()), "../x": b""})
    assert refusal(path).code == "unsafe_archive"


@pytest.mark.parametrize(
    "limits",
    [
        DatasetLimits(max_bytes=100),
        DatasetLimits(max_array_bytes=200),
        DatasetLimits(max_side=3),
        DatasetLimits(max_classes=1),
        DatasetLimits(max_entries=1),
    ],
    ids=["file", "unpacked", "side", "classes", "entries"],
)
def test_data_over_a_limit_is_refused(tmp_path: Path, limits: DatasetLimits) -> None:
    assert refusal(written(tmp_path / "d.npz", four()), limits).code == "too_large"


def test_compression_bomb_is_refused_by_its_declared_size(tmp_path: Path) -> None:
    zeros = np.zeros((1000, 32, 32, 3), dtype=np.uint8)
    np.savez_compressed(tmp_path / "d.npz", images=zeros, labels=labels(1000))
    error = refusal(tmp_path / "d.npz", DatasetLimits(max_array_bytes=1_000_000))
    assert error.code == "too_large"


def test_bomb_that_declares_little_is_refused(
    zipped: Zipped, patched_directory: Callable[..., Path]
) -> None:
    header = npy(np.zeros((2, 4, 4, 3), dtype=np.uint8))
    path = zipped(
        {"images.npy": header + bytes(10**6), "labels.npy": npy(labels(2))},
        method=zipfile.ZIP_DEFLATED,
    )
    patched_directory(path, 0, offset=24, layout="<L", value=len(header))
    assert refusal(path).code == "damaged_file"


def original() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, images=images(), labels=labels())
    return buffer.getvalue()


ORIGINAL = original()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@settings(deadline=None, max_examples=80)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, len(ORIGINAL) - 1), st.integers(0, 255)), min_size=1, max_size=4
    )
)
def test_any_damage_is_either_harmless_or_refused(
    folder: Path, changes: list[tuple[int, int]]
) -> None:
    content = bytearray(ORIGINAL)
    for place, value in changes:
        content[place] = value
    (folder / "d.npz").write_bytes(content)
    try:
        found = len(read_npz(folder / "d.npz").train.images)
    except InvalidDataset:
        found = 6
    assert found == 6
