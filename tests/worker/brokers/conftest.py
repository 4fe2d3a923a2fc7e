"""One site for each broker: what it has started is used by test after test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stack.children import Child
from store.database import Database
from store.migrate import upgrade
from tests.support import brokers
from tests.support.site import Site


@pytest.fixture(scope="module", params=brokers.NAMES)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A scheduler over a broker that is not yet running."""
    folder = tmp_path_factory.mktemp(request.param)
    database = Database(f"sqlite:///{folder / 'cstar.db'}")
    upgrade(database)
    with brokers.broker(request.param, folder) as broker:
        made = Site(database, broker, folder)
        made.start_scheduler()
        yield made
        made.close()
    database.dispose()


@pytest.fixture
def worker(site: Site) -> Child:
    """The site's worker, started where there is none that lives, and taking jobs."""
    site.broker.start()
    alive = [child for child in site.children[1:] if child.process and child.process.poll() is None]
    found = alive[0] if alive else site.start_worker()
    site.await_worker(found)
    return found
