"""Reading stored bytes again to find those that rotted: `python -m store.scrub`.

Prints each blob that is damaged or missing; the exit status is 1 when there is any. Damaged bytes
are put aside under `damaged/`, so that whoever has the file may upload it again; what was found
stays in the row's `damage` until then.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from store.blobs import CALL_S, BlobStore
from store.database import Database, database_now, waiting
from store.settings import settings
from store.states import Damage
from store.tables import Blob


@dataclass(frozen=True)
class Scrubber:
    """Compares bytes with their names, at most `bytes_per_s` of them; `pause` waits seconds."""

    database: Database
    blobs: BlobStore
    bytes_per_s: float
    pause: Callable[[float], object] = time.sleep

    def check(self, sha256: str) -> Damage | None:
        """Read a blob and note in its row how it was found; None when all is well."""
        with self.database.reading() as session:
            stored_at = session.get_one(Blob, sha256).created_at
        found = self._look(sha256)
        if found is not None:  # a second look: what the network garbled is whole in the store
            found = self._look(sha256)
        with self.database.writing() as session:
            return self._note(session, sha256, found, stored_at)

    def due(self, *, interval_s: float) -> str | None:
        """Return the blob that nobody looked at for longest, if longer than `interval_s`."""
        with self.database.reading() as session:
            limit = database_now(session) - timedelta(seconds=interval_s)
            return session.scalar(
                select(Blob.sha256)
                .where(
                    Blob.condemned_at.is_(None),
                    Blob.damage.is_(None),
                    Blob.created_at < limit,
                    or_(Blob.verified_at.is_(None), Blob.verified_at < limit),
                )
                .order_by(Blob.verified_at.is_not(None), Blob.verified_at, Blob.sha256)
                .limit(1)
            )

    def everything(self) -> Iterator[tuple[str, Damage | None]]:
        """Check every blob in the order of their names."""
        last = ""
        while (sha256 := self._after(last)) is not None:
            yield sha256, self.check(sha256)
            last = sha256

    def _look(self, sha256: str) -> Damage | None:
        digest = hashlib.sha256()
        try:
            for chunk in self.blobs.read(sha256):
                digest.update(chunk)
                self.pause(len(chunk) / self.bytes_per_s)
        except FileNotFoundError:
            return Damage.MISSING
        return None if digest.hexdigest() == sha256 else Damage.DAMAGED

    def _note(
        self, session: Session, sha256: str, found: Damage | None, stored_at: datetime
    ) -> Damage | None:
        """Write a finding, unless the blob was stored again or condemned since `stored_at`."""
        same = (Blob.created_at == stored_at, Blob.condemned_at.is_(None))
        blob = session.scalar(select(Blob).where(Blob.sha256 == sha256, *same).with_for_update())
        if blob is None:
            return None
        if found is Damage.DAMAGED and blob.damage is None:
            with waiting(session, 2 * CALL_S):  # S3 copies, then deletes
                self.blobs.put_aside(sha256)
        if found is Damage.MISSING and blob.damage is not None:
            found = Damage(blob.damage)  # put aside earlier
        blob.damage, blob.verified_at = found, database_now(session)
        return found

    def _after(self, last: str) -> str | None:
        statement = select(Blob.sha256).where(Blob.condemned_at.is_(None), Blob.sha256 > last)
        with self.database.reading() as session:
            return session.scalar(statement.order_by(Blob.sha256).limit(1))


def main() -> None:
    """Check every blob of `CSTAR_DATABASE_URL`; exit with 1 when one is damaged or missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    rate = settings().scrub_bytes_per_s
    parser.add_argument("--bytes-per-s", type=float, default=rate, help=f"at most ({rate})")
    arguments = parser.parse_args()
    scrubber = Scrubber(
        Database(settings().resolved_database_url),
        BlobStore(settings().resolved_blob_url),
        arguments.bytes_per_s,
    )
    checked, bad = 0, 0
    for sha256, damage in scrubber.everything():
        checked += 1
        if damage is not None:
            bad += 1
            print(f"{damage} {sha256}", flush=True)
    print(f"{checked} blobs checked, {bad} damaged or missing", file=sys.stderr)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
