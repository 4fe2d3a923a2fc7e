"""From parts to a file: checked as a whole, once, whatever dies on the way.

A completion holds a lease that it renews while it reads. One that dies leaves the upload
`completing`, and whoever asks next, once the lease is over, does it all again: before the parts
have become a blob it finds the parts, afterwards the blob and the note that the parts were it.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from api.dependencies import Services
from api.errors import DigestMismatch, DomainError, PartsMissing
from api.files import service as files
from api.files.formats import check_format
from api.files.receiving import room
from api.uploads import service
from api.uploads.background import Stopping
from api.uploads.schemas import Failure
from store import blobs as store
from store import uploads
from store.blobs import StoredBlob
from store.database import AWAY
from store.parts import Layout, PartsLost
from store.states import UploadStatus
from store.tables import Upload, UploadPart

LEASE_S = 15.0
logger = logging.getLogger(__name__)


class LeaseLost(Exception):
    """The upload was cancelled, or another process completes it."""


@dataclass(frozen=True)
class Claim:
    """The right to complete an upload; `verified` if its parts were found whole before."""

    upload: Upload
    token: str
    verified: bool

    @property
    def layout(self) -> Layout:
        """How the upload is cut into parts."""
        return uploads.layout_of(self.upload)


def claim(services: Services, upload_id: str, *, tenant_id: str) -> Claim | None:
    """Begin a completion; None when it is done, or under way elsewhere.

    Raises NotFound, UploadNotOpen, or PartsMissing.
    """
    _check_parts(services, upload_id, tenant_id)
    with services.database.writing() as session:
        upload = service.locked(session, upload_id, tenant_id=tenant_id)
        if upload.status == UploadStatus.COMPLETED:
            return None
        if upload.status not in uploads.LIVE:
            raise service.not_open(upload.status)
        verified = upload.verified_at is not None
        token = uploads.claim(session, upload, lease_s=LEASE_S)
        return Claim(upload, token, verified) if token else None


def carry_out(services: Services, claim: Claim) -> None:
    """Complete an upload; raises LeaseLost, Stopping, or why the parts are not the file."""
    attempt = _Attempt(services, claim)
    try:
        with attempt.beating():
            attempt.register(attempt.checked_blob())
    except LeaseLost:
        raise
    except Exception as error:
        held = True
        with suppress(*AWAY):  # else the lease runs out
            held = attempt.release()
        if isinstance(error, (DomainError, Stopping)):
            raise
        if not held:  # and so, perhaps, the bytes were gone
            raise LeaseLost from error
        logger.exception("upload %s was not completed", claim.upload.id)
        raise


@dataclass(frozen=True)
class _Attempt:
    services: Services
    claim: Claim
    over: threading.Event = field(default_factory=threading.Event)
    lost: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Keep the lease, however long a disk takes to flush or a store to copy."""
        heart = threading.Thread(target=self._beat, daemon=True)
        heart.start()
        try:
            yield
        finally:
            self.over.set()
            heart.join()

    def checked_blob(self) -> StoredBlob:
        """Return the parts as a blob, or take parts again and raise what is wrong with them."""
        try:
            with room():
                return self._blob()
        except DomainError as refusal:
            self._reopen(refusal)
            raise

    def register(self, blob: StoredBlob) -> None:
        """Give the upload its file, and the disk the room of its parts."""
        upload = self.claim.upload
        with self.services.database.writing() as session:
            self.services.quotas.claim(session, upload.tenant_id, bytes=0)  # its own are counted
            file = files.register(
                session,
                blob,
                tenant_id=upload.tenant_id,
                filename=upload.filename,
                purpose=upload.purpose,
            )
            held = uploads.complete(session, upload.id, self.claim.token, file_id=file.id)
            if not held:
                raise LeaseLost
        self.services.parts.discard(upload.id)

    def release(self) -> bool:
        """Let the next who asks go on at once; False when the lease was lost."""
        with self.services.database.writing() as session:
            return uploads.release(session, self.claim.upload.id, self.claim.token)

    def _blob(self) -> StoredBlob:
        upload, parts = self.claim.upload, self.services.parts
        try:
            check_format(upload.purpose, next(parts.read(self.claim.layout, 1), b""))
            return parts.assemble(
                self.claim.layout,
                upload.sha256,
                on_chunk=self._on_chunk,
                on_verified=self._on_verified,
            )
        except PartsLost as error:
            blobs = self.services.blobs
            if self.claim.verified and blobs.exists(upload.sha256):
                return blobs.stored(upload.sha256, upload.bytes)
            lost = [error.number] if error.number else range(1, self.claim.layout.count + 1)
            raise self._without(lost) from error
        except store.DigestMismatch as error:
            raise self._why_not(error) from error

    def _why_not(self, mismatch: store.DigestMismatch) -> DomainError:
        """Tell parts that rotted, which are forgotten, from a file that was announced wrongly."""
        damaged = [part.number for part in self._parts() if self._is_damaged(part)]
        if damaged:
            return self._without(damaged)
        return DigestMismatch(
            "The parts together are not the file whose SHA-256 was announced. Compare each part's "
            "sha256 with your file and send those that differ, or begin again with the right one.",
            members={"expected_sha256": mismatch.expected, "received_sha256": mismatch.actual},
        )

    def _is_damaged(self, part: UploadPart) -> bool:
        digest = hashlib.sha256()
        for chunk in self.services.parts.read(self.claim.layout, part.number):
            self._on_chunk()
            digest.update(chunk)
        return digest.hexdigest() != part.sha256

    def _without(self, numbers: range | list[int]) -> PartsMissing:
        with self.services.database.writing() as session:
            uploads.forget(session, self.claim.upload.id, numbers)
        return parts_missing(list(numbers))

    def _parts(self) -> list[UploadPart]:
        with self.services.database.reading() as session:
            return uploads.parts(session, self.claim.upload.id)

    def _reopen(self, refusal: DomainError) -> None:
        """Take parts again: first in the store, so that none is written past it."""
        upload = self.claim.upload
        self.services.parts.reopen(self.claim.layout)
        failure = Failure(code=refusal.code, detail=refusal.detail, members=refusal.members)
        with self.services.database.writing() as session:
            if not uploads.reopen(session, upload.id, self.claim.token, failure.model_dump()):
                raise LeaseLost

    def _beat(self) -> None:
        while not self.over.wait(LEASE_S / 3):
            with suppress(*AWAY), self.services.database.writing() as session:
                held = {"upload_id": self.claim.upload.id, "token": self.claim.token}
                if not uploads.renew(session, **held, lease_s=LEASE_S):
                    self.lost.set()

    def _on_chunk(self) -> None:
        self.services.completions.check()
        if self.lost.is_set():
            raise LeaseLost

    def _on_verified(self) -> None:
        with self.services.database.writing() as session:
            if not uploads.note_verified(session, self.claim.upload.id, self.claim.token):
                raise LeaseLost


def parts_missing(numbers: list[int]) -> PartsMissing:
    """Return the error for parts that are still to be sent."""
    detail = f"{len(numbers)} parts are missing (missing_parts); send them, then complete again."
    return PartsMissing(detail, members={"missing_parts": numbers})


def _check_parts(services: Services, upload_id: str, tenant_id: str) -> None:
    with services.database.reading() as session:
        upload = service.get(session, upload_id, tenant_id=tenant_id)
        if upload.status != UploadStatus.OPEN:
            return
        absent = service.missing(upload, service.arrived(session, upload, services))
    if absent:
        raise parts_missing(absent)
