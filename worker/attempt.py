"""One attempt at one job, and what it works with."""

from __future__ import annotations

from dataclasses import dataclass

from store.blobs import BlobStore
from store.database import Database
from store.leases import Lease
from store.settings import Settings


@dataclass(frozen=True)
class Attempt:
    """The lease of an attempt with the database and blob store it writes to.

    `claimed_at`: on the monotonic clock, not later than the lease began by the database's.
    """

    database: Database
    blobs: BlobStore
    lease: Lease
    settings: Settings
    claimed_at: float
