"""Uploads: a small file in one request, a large one in parts that go on where they broke off.

What has arrived is asked of the service, so that nothing has to be kept here: an upload that is
open for the same bytes is gone on with, also by another process or machine.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import cast

from cstar_client import lists
from cstar_client.digests import Digests, chunks, field_value, sha256
from cstar_client.documents import File, Purpose, Upload
from cstar_client.errors import ApiError, ConnectionFailed, Timeout
from cstar_client.parallel import side_by_side
from cstar_client.transport import Transport, document

SMALL_BYTES = 16 << 20  # above, a second request costs little beside the bytes
PARALLEL = 4
PART_BYTES = 32 << 20  # what the service chooses for most files; other parts are hashed when sent
LOOKED_AT = 300  # of the newest uploads, for one to go on with
COMPLETION_WAIT_S = 30
MOST_ROUNDS = 20  # of completing, which also sends what the service has found damaged
OnProgress = Callable[[int, int], None]
"""Is told how many bytes are done, and of how many; from several threads, one at a time."""


def send(
    transport: Transport, path: Path, purpose: Purpose, on_progress: OnProgress | None = None
) -> File:
    """Upload a file and return its record; raises ApiError or ConnectionFailed.

    Bytes that are there already are not sent again.
    """
    total = path.stat().st_size
    progress = _Progress(total, on_progress)
    if total <= SMALL_BYTES:
        return _put(transport, path, purpose, progress)
    digests = Digests.of(path, PART_BYTES)
    upload = _opened(transport, path, purpose, digests.whole)
    for _ in range(MOST_ROUNDS):
        if upload["file"] is not None:
            progress.finish()
            return upload["file"]
        with _given_up_if_refused(transport, upload):
            _Parts(transport, path, upload, digests, progress).send()
            upload = _completed(transport, upload)
    raise Timeout(f"{upload['id']} was not completed; call again to go on")


@dataclass
class _Progress:
    """Adds up what the threads have sent; a part that is sent again does not count twice."""

    total: int
    tell: OnProgress | None
    sent: dict[int, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, number: int, count: int) -> None:
        with self.lock:
            self.sent[number] = count
            if self.tell is not None:
                self.tell(sum(self.sent.values()), self.total)

    def finish(self) -> None:
        """Say that all is there, however it came."""
        self.sent.clear()
        self.note(0, self.total)


def _put(transport: Transport, path: Path, purpose: Purpose, progress: _Progress) -> File:
    """Send a file in one request, with its digest (RFC 9530)."""
    answer = transport.send(
        "PUT",
        "/v1/files",
        params={"filename": path.name, "purpose": purpose},
        headers={
            "Content-Digest": field_value(sha256(path)),
            "Content-Length": str(progress.total),
        },
        content=lambda: _counted(chunks(path), 0, progress),
    )
    return cast(File, document(answer))


def _counted(pieces: Iterator[bytes], number: int, progress: _Progress) -> Iterator[bytes]:
    count = 0
    for piece in pieces:
        yield piece
        count += len(piece)
        progress.note(number, count)


def _opened(transport: Transport, path: Path, purpose: Purpose, digest: bytes) -> Upload:
    """Return the upload of these bytes that is under way, or a new one."""
    body = {
        "filename": path.name,
        "purpose": purpose,
        "bytes": path.stat().st_size,
        "sha256": digest.hex(),
    }
    for known in islice(lists.rows(transport, "/v1/uploads"), LOOKED_AT):
        live = known["status"] in ("open", "completing")
        if live and all(known[name] == value for name, value in body.items()):
            return cast(Upload, transport.get(f"/v1/uploads/{known['id']}"))
    return cast(Upload, transport.post("/v1/uploads", body))


@contextmanager
def _given_up_if_refused(transport: Transport, upload: Upload) -> Iterator[None]:
    """Give up an upload whose bytes are not those announced: the next attempt begins anew."""
    try:
        yield
    except ApiError as error:
        if error.code in ("digest_mismatch", "unknown_format"):
            transport.send("POST", f"/v1/uploads/{upload['id']}/cancel", repeatable=True)
        raise


def _completed(transport: Transport, upload: Upload) -> Upload:
    """Have the whole checked; returns the upload as it is then."""
    url = f"/v1/uploads/{upload['id']}"
    try:
        answer = transport.send(
            "POST", f"{url}/complete", wait_s=COMPLETION_WAIT_S, repeatable=True
        )
        return cast(Upload, document(answer))
    except ApiError as error:
        if error.code == "parts_missing":
            return cast(Upload, transport.get(url))
        raise


@dataclass(frozen=True)
class _Parts:
    """Sends the parts of an upload that are missing, some at once."""

    transport: Transport
    path: Path
    upload: Upload
    digests: Digests
    progress: _Progress

    def send(self) -> None:
        """Send them all; raises the first error, after the parts under way."""
        for part in self.upload["parts"]:
            self.progress.note(part["number"], part["bytes"])
        direct = {one["number"]: one["url"] for one in self.upload["presigned_parts"]}
        side_by_side(
            lambda n: self._part(n, direct), self.upload["missing_parts"], threads=PARALLEL
        )

    def _part(self, number: int, direct: dict[int, str]) -> None:
        """Send a part: to the bucket itself where it takes parts, else to the service."""
        if self._sent_direct(number, direct):
            return
        url = f"/v1/uploads/{self.upload['id']}/parts/{number}"
        headers = {
            "Content-Digest": field_value(self._digest(number)),
            "Content-Length": str(self._size(number)),
        }
        self.transport.send("PUT", url, headers=headers, content=lambda: self._bytes(number))

    def _sent_direct(self, number: int, direct: dict[int, str]) -> bool:
        url = direct.get(number)
        if url is None:
            return False
        try:
            self.transport.put_elsewhere(
                url, content=lambda: self._bytes(number), length=self._size(number)
            )
        except (ApiError, ConnectionFailed):
            direct.clear()  # whoever cannot reach the bucket need not try with every part
            return False
        return True

    def _digest(self, number: int) -> bytes:
        if self.digests.part_bytes == self.upload["part_bytes"]:
            return self.digests.parts[number - 1]
        return sha256(self.path, start=self._start(number), length=self._size(number))

    def _bytes(self, number: int) -> Iterator[bytes]:
        pieces = chunks(self.path, start=self._start(number), length=self._size(number))
        return _counted(pieces, number, self.progress)

    def _start(self, number: int) -> int:
        return (number - 1) * self.upload["part_bytes"]

    def _size(self, number: int) -> int:
        return min(self.upload["part_bytes"], self.upload["bytes"] - self._start(number))
