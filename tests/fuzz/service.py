"""A real API process over SQLite, with two tenants of whom the first has things."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from stack.children import Child
from store.blobs import BlobStore
from store.database import Database
from store.keys import create_key, create_tenant
from store.migrate import upgrade
from tests.api.world import World
from tests.fuzz.things import Things, fill
from tests.support.server import SECRET, serving

METRICS_TOKEN = "a token of the tests"
SETTINGS = {
    "metrics_token": METRICS_TOKEN,
    "max_single_upload_bytes": 1 << 20,
    "rate_limit_per_minute": 0,
    "failures_per_minute": 0,
    "quota_webhook_endpoints": 0,  # of which, and of uploads, many are made and stay
    "quota_uploads": 0,
}


@dataclass(frozen=True)
class Service:
    """Where the API is, the keys of both tenants, and the things of the first."""

    url: str
    process: Child
    owner_key: str
    stranger_key: str
    things: Things

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the tenant that has the things."""
        return {"Authorization": f"Bearer {self.owner_key}"}


@contextmanager
def service(folder: Path) -> Iterator[Service]:
    """Run the API over an SQLite database in `folder` until the block ends."""
    database = Database(f"sqlite:///{folder / 'cstar.db'}")
    upgrade(database)
    owner_id, owner_key = _tenant(database, "owner")
    _, stranger_key = _tenant(database, "stranger")
    world = World(database, BlobStore((folder / "blobs").as_uri()), owner_id)
    with serving(database, folder, **SETTINGS) as (url, process):
        headers = {"Authorization": f"Bearer {owner_key}"}
        with httpx.Client(base_url=url, headers=headers, timeout=60.0) as client:
            things = fill(world, client)
        yield Service(url, process, owner_key, stranger_key, things)
    database.dispose()


def _tenant(database: Database, name: str) -> tuple[str, str]:
    with database.writing() as session:
        tenant_id = create_tenant(session, name).id
        return tenant_id, create_key(session, tenant_id=tenant_id, name="fuzz", secret_key=SECRET)
