"""What the service asks of a place for parts, and what it says of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from store.blobs import StoredBlob

FOLDER = "uploads"


class Sealed(Exception):
    """The upload takes no more bytes: it is being completed, or it is over."""


class PartsLost(Exception):
    """The bytes of an upload are gone: of the part `number`, or of all of it."""

    def __init__(self, number: int | None = None) -> None:
        super().__init__(number)
        self.number = number


@dataclass(frozen=True)
class Layout:
    """How a file of `bytes` is cut: all parts have `part_bytes`, the last has what is left."""

    upload_id: str
    bytes: int
    part_bytes: int

    @property
    def count(self) -> int:
        """How many parts there are; they are numbered from 1."""
        return -(-self.bytes // self.part_bytes)

    def start(self, number: int) -> int:
        """Return where a part begins in the file."""
        return (number - 1) * self.part_bytes

    def size(self, number: int) -> int:
        """Return how many bytes a part has."""
        return min(self.part_bytes, self.bytes - self.start(number))


@dataclass(frozen=True)
class FoundPart:
    """A part that lies in an object store."""

    bytes: int
    e_tag: str | None


class PartWriter(Protocol):
    """A part being written; leaving the context without `commit()` discards it if it can be."""

    def __enter__(self) -> PartWriter: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def write(self, chunks: Sequence[bytes]) -> None:
        """Append bytes; raises Sealed once the upload takes no more."""

    def commit(self) -> str | None:
        """Finish the part; returns the object store's tag of it, where it has one."""


class PartStore(Protocol):
    """Where the parts of uploads are kept."""

    def write(self, layout: Layout, number: int) -> PartWriter:
        """Begin a part."""

    def found(self, layout: Layout) -> dict[int, FoundPart] | None:
        """Return the parts that lie there, also those a client put there itself.

        None: only the service puts parts there, so its rows know.
        """

    def presign(self, layout: Layout, number: int, *, expires_in_s: float) -> str | None:
        """Return a URL that takes a part by PUT from whoever has it, if the store has such."""

    def read(self, layout: Layout, number: int) -> Iterator[bytes]:
        """Yield the bytes of a part; raises PartsLost when there are none."""

    def assemble(
        self, layout: Layout, sha256: str, *, on_chunk: Callable[[], object],
        on_verified: Callable[[], object],
    ) -> StoredBlob:  # fmt: skip
        """Make the parts a blob; from here on none is taken until `reopen`.

        `on_chunk` is called now and then and may raise to break off; `on_verified` before the
        parts get the name of the blob. Raises DigestMismatch or PartsLost.
        """

    def reopen(self, layout: Layout) -> None:
        """Take parts again."""

    def discard(self, upload_id: str) -> None:
        """Remove all parts."""

    def old(self, *, grace_s: float) -> set[str]:
        """Return the ids of uploads of which something lies there, untouched for `grace_s`."""
