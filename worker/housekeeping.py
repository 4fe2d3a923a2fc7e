"""What the scheduler does beside its passes: retention, garbage, scrubbing, what has expired."""

from __future__ import annotations

import logging
import threading
import time
from functools import partial

from store import audit, garbage, idempotency, uploads
from store.blobs import BlobStore
from store.database import Database
from store.parts import open_parts
from store.retention import Retention, remove_expired
from store.scrub import Scrubber
from store.settings import Settings
from store.webhooks.deliveries import FORGET_AT_ONCE, forget

logger = logging.getLogger(__name__)

GARBAGE_INTERVAL_S = 600.0
ORPHAN_INTERVAL_S = 6 * 3600.0  # lists everything that is stored
GARBAGE_GRACE_S = 3600.0
UPLOADS_KEPT_S = 7 * 86400.0  # once they are over, so that a client learns how they ended
IDLE_S = 10.0  # between two looks at whether there is something to do


class Housekeeper:
    """`run()` goes on until `stop` is set; any number may run."""

    def __init__(self, database: Database, blobs: BlobStore, configuration: Settings) -> None:
        self._database = database
        self._blobs = blobs
        self._settings = configuration
        self._parts = open_parts(blobs)
        now = time.monotonic()
        self._next_collection_at = now + GARBAGE_INTERVAL_S
        self._next_orphans_at = now + ORPHAN_INTERVAL_S

    def run(self, stop: threading.Event) -> None:
        """Collect garbage now and then, and read again what nobody has read for long."""
        while not stop.wait(IDLE_S):
            try:
                self.collect_when_due()
                while not stop.is_set() and self.scrub(stop):
                    self.collect_when_due()
            except Exception:
                logger.exception("housekeeping failed; trying again")

    def collect_when_due(self) -> None:
        """Remove what is old, and then garbage, every GARBAGE_INTERVAL_S."""
        now = time.monotonic()
        if now >= self._next_collection_at:
            self._next_collection_at = now + GARBAGE_INTERVAL_S
            for step in (self.retain, partial(self._collect_all, now), self.forget_deliveries):
                try:
                    step()
                except Exception:  # the others are not to wait for its repair
                    logger.exception("a step of housekeeping failed; trying again")

    def retain(self) -> None:
        """Remove what is older than the operator keeps it; its bytes are garbage from then on."""
        settings = self._settings
        removed = remove_expired(
            self._database,
            Retention(
                jobs_days=settings.retention_jobs_days,
                plans_days=settings.retention_plans_days,
                files_days=settings.retention_files_days,
            ),
        )
        if removed:
            logger.info("removed for their age: %s", removed)

    def collect(self, *, orphans: bool = False) -> None:
        """Remove blobs nothing refers to and what was left in staging; `orphans`: rowless bytes."""
        if orphans:
            garbage.condemn_orphans(self._database, self._blobs, grace_s=GARBAGE_GRACE_S)
        with self._database.writing() as session:
            idempotency.sweep(session)
            if self._settings.audit_retention_s:
                audit.forget_old(session, older_than_s=self._settings.audit_retention_s)
            garbage.condemn_unreferenced(session, grace_s=GARBAGE_GRACE_S)
        removed = garbage.remove_condemned(self._database, self._blobs)
        swept = self._blobs.sweep_staging(grace_s=GARBAGE_GRACE_S) + self._end_uploads()
        if removed or swept:
            logger.info("removed %d blobs and %d left-overs", len(removed), swept)

    def _collect_all(self, now: float) -> None:
        orphans = now >= self._next_orphans_at
        self.collect(orphans=orphans)
        if orphans:
            self._next_orphans_at = now + ORPHAN_INTERVAL_S

    def forget_deliveries(self) -> None:
        """Remove old webhook deliveries, a thousand in a transaction."""
        removed = FORGET_AT_ONCE
        while removed == FORGET_AT_ONCE:
            with self._database.writing() as session:
                removed = forget(session)

    def _end_uploads(self) -> int:
        """End uploads whose time is up; returns of how many something was removed."""
        with self._database.writing() as session:
            expired = uploads.expire(session)
            uploads.purge(session, kept_s=UPLOADS_KEPT_S)
        uploads.discard(self._parts, expired)
        return uploads.sweep(self._database, self._parts, grace_s=GARBAGE_GRACE_S) + len(expired)

    def scrub(self, stop: threading.Event) -> bool:
        """Check the blob that is due, if there is one; says whether there was."""
        rate = self._settings.scrub_bytes_per_s
        scrubber = Scrubber(self._database, self._blobs, rate, pause=stop.wait)
        sha256 = scrubber.due(interval_s=self._settings.scrub_interval_s)
        if sha256 is None:
            return False
        damage = scrubber.check(sha256)
        if damage is not None:
            logger.error("blob %s is %s; see docs/errors.md, storage_error", sha256, damage)
        return True
