"""A zip archive is looked over before anything in it is read."""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from cstar_core.errors import InvalidDataset, InvalidModel
from cstar_core.files.archives import ArchiveLimits, check_archive

Zipped = Callable[..., Path]


def refusal_code(path: Path, limits: ArchiveLimits | None = None) -> str:
    with pytest.raises(InvalidModel) as refusal:
        check_archive(path, limits=limits or ArchiveLimits(), error=InvalidModel)
    return refusal.value.code


def test_plain_archive_is_listed(zipped: Zipped) -> None:
    path = zipped({"a": b"1", "b/c": b"22"}, method=zipfile.ZIP_DEFLATED)
    entries = check_archive(path, limits=ArchiveLimits(), error=InvalidModel)
    assert [(entry.filename, entry.file_size) for entry in entries] == [("a", 1), ("b/c", 2)]


@pytest.mark.parametrize(
    "name",
    ["../a", "b/../../a", "b\\..\\..\\a", "/etc/a", "\\a", "C:/a", "C:a"],
    ids=["up", "inner up", "backslash up", "absolute", "backslash", "drive", "drive relative"],
)
def test_names_outside_the_archive_are_refused(zipped: Zipped, name: str) -> None:
    assert refusal_code(zipped({"ok": b"", name: b"x"})) == "unsafe_archive"


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int) -> None:
    path = tmp_path / "made.zip"
    entry = zipfile.ZipInfo("link")
    entry.external_attr = (kind | 0o644) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry, b"/etc/passwd")
    assert refusal_code(path) == "unsafe_archive"


def test_encrypted_entries_are_refused(
    zipped: Zipped, patched_directory: Callable[..., Path]
) -> None:
    path = patched_directory(zipped({"a": b"x"}), 0, offset=8, layout="<H", value=1)
    assert refusal_code(path) == "unsafe_archive"


def test_unusual_compression_is_refused(zipped: Zipped) -> None:
    assert refusal_code(zipped({"a": b"x"}, method=zipfile.ZIP_LZMA)) == "unsafe_archive"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "made.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"1")
        archive.writestr("a", b"2")
    assert refusal_code(path) == "unsafe_archive"


def test_overlapping_entries_are_refused(
    zipped: Zipped, patched_directory: Callable[..., Path]
) -> None:
    path = patched_directory(
        zipped({"a": b"x" * 100, "b": b"y"}), 1, offset=42, layout="<L", value=0
    )
    assert refusal_code(path) == "unsafe_archive"


def test_entry_that_reaches_into_the_directory_is_refused(
    zipped: Zipped, patched_directory: Callable[..., Path]
) -> None:
    path = patched_directory(zipped({"a": b"xyz"}), 0, offset=20, layout="<L", value=40)
    assert refusal_code(path) == "unsafe_archive"


def test_entry_without_a_header_is_refused(
    zipped: Zipped, patched_directory: Callable[..., Path]
) -> None:
    path = patched_directory(zipped({"a": b"xyz"}), 0, offset=42, layout="<L", value=3)
    assert refusal_code(path) == "truncated_file"


def test_bytes_before_the_archive_are_refused(zipped: Zipped) -> None:
    path = zipped({"a": b"x"})
    path.write_bytes(b"PK\x03\x04 something else" + path.read_bytes())
    assert refusal_code(path) == "unsafe_archive"


@pytest.mark.parametrize("keep", [0, 10, 60, 100])
def test_truncated_archive_is_refused(zipped: Zipped, keep: int) -> None:
    path = zipped({"a": b"x" * 50})
    path.write_bytes(path.read_bytes()[:keep])
    assert refusal_code(path) == "truncated_file"


def test_damaged_directory_is_refused(
    zipped: Zipped, patched_directory: Callable[..., Path]
) -> None:
    path = patched_directory(zipped({"a": b"x"}), 0, offset=0, layout="<L", value=0)
    assert refusal_code(path) == "truncated_file"


def test_declared_size_is_capped(zipped: Zipped) -> None:
    path = zipped({"a": bytes(100_000)}, method=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1000
    assert refusal_code(path, ArchiveLimits(max_total_bytes=99_999)) == "too_large"


def test_declared_64_bit_size_is_capped(tmp_path: Path) -> None:
    path = tmp_path / "made.zip"
    with zipfile.ZipFile(path, "w") as archive, archive.open("a", "w", force_zip64=True) as entry:
        entry.write(b"x" * 200)
    assert refusal_code(path, ArchiveLimits(max_total_bytes=100)) == "too_large"


@pytest.mark.parametrize(
    "limits", [ArchiveLimits(max_entries=2), ArchiveLimits(max_directory_bytes=100)]
)
def test_number_of_entries_is_capped_before_they_are_listed(
    zipped: Zipped, limits: ArchiveLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zipped({"a": b"", "b": b"", "c": b""})
    monkeypatch.setattr(zipfile, "ZipFile", None)
    assert refusal_code(path, limits) == "too_large"


def test_number_of_entries_of_a_64_bit_directory_is_capped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "made.zip"
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("a", "b", "c"):
            archive.writestr(name, b"")
    content = path.read_bytes()
    # The old end record no longer knows the count; the 64-bit one does.
    at = content.rindex(b"PK\x05\x06")
    path.write_bytes(content[: at + 8] + b"\xff\xff\xff\xff" + content[at + 12 :])
    assert len(check_archive(path, limits=ArchiveLimits(), error=InvalidModel)) == 3
    assert refusal_code(path, ArchiveLimits(max_entries=2)) == "too_large"


def test_refusal_is_of_the_kind_that_was_asked_for(zipped: Zipped) -> None:
    with pytest.raises(InvalidDataset):
        check_archive(zipped({"../a": b""}), limits=ArchiveLimits(), error=InvalidDataset)


def test_declared_size_binds_what_zipfile_returns(
    zipped: Zipped, patched_directory: Callable[..., Path]
) -> None:
    path = zipped({"a": bytes(100_000)}, method=zipfile.ZIP_DEFLATED)
    patched_directory(path, 0, offset=24, layout="<L", value=10)
    check_archive(path, limits=ArchiveLimits(max_total_bytes=10), error=InvalidModel)
    with zipfile.ZipFile(path) as archive, pytest.raises(zipfile.BadZipFile, match="CRC"):
        archive.read("a")


def test_hostile_names_are_shown_short_and_printable(zipped: Zipped) -> None:
    entries: Mapping[str, bytes] = {"../\x1b[31m" + "x" * 300: b""}
    with pytest.raises(InvalidModel) as refusal:
        check_archive(zipped(entries), limits=ArchiveLimits(), error=InvalidModel)
    assert "\x1b" not in str(refusal.value)
    assert len(str(refusal.value)) < 300


def test_archive_with_a_comment_is_read(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a", b"x")
        archive.comment = b"made by hand"
    path = tmp_path / "made.zip"
    path.write_bytes(buffer.getvalue())
    assert len(check_archive(path, limits=ArchiveLimits(), error=InvalidModel)) == 1
