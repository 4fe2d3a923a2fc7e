"""Telling a machine that has run short from a file that is damaged."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# torch, safetensors and numpy say it in words, as a RuntimeError or an error of their own.
_MEMORY_WORDS = (
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "out of memory",
    "unable to allocate",
)
_DISK_WORDS = ("no space left on device", "disk quota exceeded", "file too large")


@dataclass(frozen=True)
class Shortage:
    """Of what there was too little, how that was told, and whether it may pass by itself."""

    code: Literal["out_of_memory", "storage_error"]
    text: str
    passes: bool = True


def shortage(error: BaseException) -> Shortage | None:
    """Say of what the machine has run short, if `error` comes of that.

    A reader that meets a MemoryError calls the file damaged; what it met is the error's cause.
    """
    for link in _chain(error):
        if _is_memory(link):
            return Shortage("out_of_memory", str(link) or "out of memory")
        if _is_disk(link):
            own_limit = isinstance(link, OSError) and link.errno == errno.EFBIG
            return Shortage("storage_error", f"the job's folder: {link}", passes=not own_limit)
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _is_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):  # Python's parser raises one for text nested too deeply
        return "parser" not in str(error).lower()
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return _says(error, _MEMORY_WORDS)


def _is_disk(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in _DISK
    return _says(error, _DISK_WORDS)


def _says(error: BaseException, words: tuple[str, ...]) -> bool:
    """Say whether a library gives one of these reasons; our own messages may quote a client."""
    ours = type(error).__module__.startswith("cstar_core")
    return not ours and any(word in str(error).lower() for word in words)
