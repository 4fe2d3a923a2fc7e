"""Read the format `torch.save` wrote before torch 1.6, and nothing older.

Layout (torch 2.13, `torch/serialization.py`, `_legacy_load`): five pickles one after the other, the
magic number, the protocol version, the system, the object and the list of storage keys. Then in
the order of that list each storage: the number of elements (int64, little endian) and its bytes.
The tar archives of the first releases are refused before torch sees them.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from cstar_core.errors import InvalidModel
from cstar_core.files.pickle_opcodes import Opcode, read_opcodes
from cstar_core.files.weights_pickle import (
    SAVE_STATE,
    Storage,
    check_pickle,
    declared_storages,
    load_weights,
)

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001
_COUNT_BYTES = 8
_TAR_BLOCK = 512


def looks_pickled(head: bytes) -> bool:
    """Whether a file could start with a pickle of protocol 2 to 5."""
    return head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")


def is_tar(head: bytes) -> bool:
    """Whether the first 512 bytes are the header of a tar archive (POSIX.1-1988, ustar, or older).

    The same parse as in `tarfile.open`, which torch tries first on every file, but of one block
    only: the records that may follow have any length.
    """
    if head[257:262] == b"ustar":
        return True
    try:
        tarfile.TarInfo.frombuf(head[:_TAR_BLOCK], "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    return True


def tar_refusal() -> InvalidModel:
    """The refusal of a tar archive."""
    return InvalidModel(
        "This is a tar archive. Those of the first torch releases are not read, as torch cannot "
        "read them without running what is in them. Where you trust the file, load it with the "
        f"code it came from and save it anew. {SAVE_STATE}",
        code="legacy_format",
    )


def load_legacy(
    path: Path, *, max_pickle_bytes: int, max_opcodes: int, max_storages: int
) -> object:
    """Whatever a legacy `torch.save` file holds, its tensors on the CPU.

    Every number that torch would allocate by is checked against the file first. Raises
    `InvalidModel`: `truncated_file`, `damaged_file`, `unknown_format`, `pickled_module`,
    `too_large`, `unsupported_dtype`.
    """
    with path.open("rb") as stream:
        pickles = _Pickles(stream, max_bytes=max_pickle_bytes, max_opcodes=max_opcodes)
        _check_number(check_pickle(pickles.next()).value, _MAGIC_NUMBER)
        _check_number(check_pickle(pickles.next()).value, _PROTOCOL_VERSION)
        check_pickle(pickles.next())
        storages = declared_storages(check_pickle(pickles.next()).references)
        keys = check_pickle(pickles.next()).value
        if len(storages) > max_storages:
            raise InvalidModel(
                f"The file holds {len(storages)} storages; at most {max_storages} are read. "
                f"{SAVE_STATE}",
                code="too_large",
            )
        _check_data(stream, _in_order(keys, storages), begin=pickles.end, end=pickles.size)
        return load_weights(stream)


class _Pickles:
    """The pickles at the start of a file, one after the other, all of them in `max_bytes`."""

    def __init__(self, stream: IO[bytes], *, max_bytes: int, max_opcodes: int) -> None:
        self.size = stream.seek(0, io.SEEK_END)
        stream.seek(0)
        self._head = io.BytesIO(stream.read(max_bytes))
        self._max_bytes = max_bytes
        self._max_opcodes = max_opcodes

    @property
    def end(self) -> int:
        """Where the pickle read last ends in the file, in bytes."""
        return self._head.tell()

    def next(self) -> tuple[Opcode, ...]:
        """The opcodes of the next pickle."""
        try:
            return read_opcodes(self._head, limit=self._max_opcodes)
        except InvalidModel as failure:
            if failure.code != "damaged_file" or self._head.read(1):
                raise
            if self.size <= self._max_bytes:
                raise _truncated("in the middle of a pickle") from failure
            raise InvalidModel(
                f"The pickles in the file have more than {self._max_bytes} bytes. {SAVE_STATE}",
                code="too_large",
            ) from failure


def _check_number(value: object, expected: int) -> None:
    if type(value) is not int or value != expected:
        raise InvalidModel(
            f"The file is a pickle, but none that torch.save wrote. {SAVE_STATE}",
            code="unknown_format",
        )


def _in_order(keys: object, storages: Mapping[str, Storage]) -> list[Storage]:
    """The storages in the order of their data; one that is left out would keep stray memory."""
    known = [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []
    if not isinstance(keys, list) or len(known) != len(keys) or sorted(known) != sorted(storages):
        raise _lying("the list of storages is not that of the tensors")
    return [storages[key] for key in known]


def _check_data(stream: IO[bytes], storages: list[Storage], *, begin: int, end: int) -> None:
    """The storages must fill the file from `begin` to `end` exactly, as the pickle declares."""
    position = begin
    for storage in storages:
        if position + _COUNT_BYTES > end:
            raise _truncated("before its last storage")
        stream.seek(position)
        count = int.from_bytes(stream.read(_COUNT_BYTES), "little", signed=True)
        if count != storage.count:
            raise _lying(f"a storage of {storage.count} elements has {count}")
        position += _COUNT_BYTES + count * storage.dtype.itemsize
        if position > end:
            raise _truncated(f"{position - end} bytes before the end of a storage")
    if position < end:
        raise _lying(f"there are {end - position} bytes behind the last storage")


def _truncated(where: str) -> InvalidModel:
    return InvalidModel(
        f"The file is cut short: it ends {where}. Upload the whole file.", code="truncated_file"
    )


def _lying(reason: str) -> InvalidModel:
    return InvalidModel(
        f"The file contradicts itself: {reason}. Upload it again, or save the weights anew with "
        "torch.save(model.state_dict(), path).",
        code="damaged_file",
    )
