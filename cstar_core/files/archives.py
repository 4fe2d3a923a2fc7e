"""Checks of a zip archive before anything in it is unpacked.

Format: PKWARE APPNOTE.TXT 6.3.10, sections 4.3 (layout) and 4.4 (fields). Nothing is ever
extracted to disk; the checks on names keep the archive safe for whoever does.
"""

from __future__ import annotations

import stat
import struct
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cstar_core.errors import InvalidDataset, InvalidModel
from cstar_core.files.listing import shown

Refusal = type[InvalidModel] | type[InvalidDataset]

ZIP_MAGIC = b"PK\x03\x04"
_END, _END64, _LOCATOR64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_END_SIZE, _END64_SIZE, _LOCATOR64_SIZE, _LOCAL_SIZE = 22, 56, 20, 30
_LONGEST_COMMENT = 0xFFFF
_ENCRYPTED = 0x1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True, kw_only=True)
class ArchiveLimits:
    """How large an archive may be; sizes in bytes, as declared by its directory.

    The declared sizes bind: `zipfile` never returns more of an entry than it declares.
    """

    max_entries: int = 20_000
    max_total_bytes: int = 4 * 2**30
    max_directory_bytes: int = 16 * 2**20


def check_archive(
    path: Path, *, limits: ArchiveLimits, error: Refusal
) -> tuple[zipfile.ZipInfo, ...]:
    """The entries of a zip archive, once all of them are known to be harmless to read.

    Raises `error` with code `truncated_file`, `too_large` or `unsafe_archive`.
    """
    with path.open("rb") as stream:
        _check_directory(stream, limits=limits, error=error)
        try:
            with zipfile.ZipFile(stream) as archive:
                entries = tuple(archive.infolist())
                directory_start = archive.start_dir
        except (zipfile.BadZipFile, RuntimeError, ValueError, struct.error) as failure:
            raise error(
                f"The zip archive is damaged ({failure}); upload it again.", code="truncated_file"
            ) from failure
        _check_sizes(entries, limits=limits, error=error)
        _check_names(entries, error=error)
        _check_overlap(stream, entries, end=directory_start, error=error)
    return entries


def _check_directory(stream: BinaryIO, *, limits: ArchiveLimits, error: Refusal) -> None:
    """Bound the central directory before `zipfile` reads all of it into memory."""
    size = stream.seek(0, 2)
    tail_start = max(0, size - _END_SIZE - _LONGEST_COMMENT)
    stream.seek(tail_start)
    tail = stream.read()
    found = tail.rfind(_END)
    if found < 0 or len(tail) - found < _END_SIZE:
        raise error(
            "The zip archive ends before its directory; upload the whole file.",
            code="truncated_file",
        )
    end = tail_start + found
    count, length, offset, end = _directory(stream, end)
    if count > limits.max_entries or length > limits.max_directory_bytes:
        raise error(
            f"The archive lists {count} entries; at most {limits.max_entries} are read.",
            code="too_large",
        )
    # Bytes before the archive would shift every offset, and readers disagree on what to do then.
    if offset + length != end:
        raise error(
            "The zip directory is not where the archive says; write the file again.",
            code="unsafe_archive",
        )


def _directory(stream: BinaryIO, end: int) -> tuple[int, int, int, int]:
    """Entry count, length and offset of the central directory, and where its end record begins."""
    stream.seek(end)
    fields = struct.unpack("<4s4H2LH", stream.read(_END_SIZE))
    count, length, offset = fields[4], fields[5], fields[6]
    if end < _LOCATOR64_SIZE + _END64_SIZE:
        return count, length, offset, end
    stream.seek(end - _LOCATOR64_SIZE)
    if stream.read(4) != _LOCATOR64:
        return count, length, offset, end
    end64 = end - _LOCATOR64_SIZE - _END64_SIZE
    stream.seek(end64)
    record = struct.unpack("<4sQ2H2L4Q", stream.read(_END64_SIZE))
    if record[0] != _END64:
        return count, length, offset, end
    return record[7], record[8], record[9], end64


def _check_sizes(
    entries: Sequence[zipfile.ZipInfo], *, limits: ArchiveLimits, error: Refusal
) -> None:
    total = sum(entry.file_size for entry in entries)
    if len(entries) > limits.max_entries or total > limits.max_total_bytes:
        raise error(
            f"The archive unpacks to {total} bytes in {len(entries)} entries; at most "
            f"{limits.max_total_bytes} bytes in {limits.max_entries} entries are read.",
            code="too_large",
        )


def _check_names(entries: Sequence[zipfile.ZipInfo], *, error: Refusal) -> None:
    seen: set[str] = set()
    for entry in entries:
        reason = "appears twice" if entry.filename in seen else _danger(entry)
        if reason:
            raise error(
                f"The archive entry {shown(entry.orig_filename)} {reason}; "
                "make the archive again from plain files.",
                code="unsafe_archive",
            )
        seen.add(entry.filename)


def _danger(entry: zipfile.ZipInfo) -> str | None:
    """Why an entry must not be read, or None. Backslashes count as separators, as on Windows."""
    name = entry.orig_filename.replace("\\", "/")
    if not name or "\0" in name:
        return "has no usable name"
    if name.startswith("/") or name[1:2] == ":":
        return "has an absolute name"
    if ".." in name.split("/"):
        return "climbs out of the archive"
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if entry.flag_bits & _ENCRYPTED:
        return "is encrypted"
    return None if entry.compress_type in _METHODS else "is compressed in an unusual way"


def _check_overlap(
    stream: BinaryIO, entries: Sequence[zipfile.ZipInfo], *, end: int, error: Refusal
) -> None:
    """Entries that share bytes are how a small archive unpacks to a huge one."""
    ordered = sorted(entries, key=lambda entry: entry.header_offset)
    following = [entry.header_offset for entry in ordered[1:]] + [end]
    for entry, limit in zip(ordered, following, strict=True):
        stream.seek(max(0, entry.header_offset))
        header = stream.read(_LOCAL_SIZE)
        if len(header) < _LOCAL_SIZE or not header.startswith(ZIP_MAGIC):
            raise error(
                f"The archive entry {shown(entry.filename)} has no header; upload it again.",
                code="truncated_file",
            )
        name_length, extra_length = struct.unpack("<2H", header[26:30])
        data_start = entry.header_offset + _LOCAL_SIZE + name_length + extra_length
        if data_start + entry.compress_size > limit:
            raise error(
                f"The archive entry {shown(entry.filename)} overlaps another one; "
                "make the archive again from plain files.",
                code="unsafe_archive",
            )
