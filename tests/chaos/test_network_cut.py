"""A worker that is cut off from the database: it stops, and can write nothing afterwards."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

import pytest
from sqlalchemy import URL, make_url

from stack.children import Child
from store import records
from store.database import Database
from store.leases import Lease
from store.lifecycle import LeaseLost
from store.migrate import upgrade
from tests.conftest import PostgresServer
from tests.e2e.watching import until
from tests.support import brokers, hosts, postgres, rows, small
from tests.support.proxy import proxy
from tests.support.site import Site, log_has
from tests.support.small_runner import STEPS_A_PHASE

SOON = {"tcp_user_timeout": "2000", "connect_timeout": "2"}


class Link(Protocol):
    """What joins a worker to the database."""

    def cut(self) -> None: ...

    def heal(self) -> None: ...


def cut_off_whoever_works(site: Site, links: dict[str, Link], workers: list[Child]) -> None:
    """Cut the worker that has a job off in the middle of it, and look at what becomes of both."""
    job_id = site.add_job(seed=5, hold_at=STEPS_A_PHASE + 2)
    site.await_step(job_id, STEPS_A_PHASE + 2)
    far, near = sorted(workers, key=lambda worker: not site.works_on(worker, job_id))
    left = site.job(job_id)
    lease = Lease(job_id, str(left.lease_token), left.attempt)
    links[far.name].cut()
    job = site.finished(job_id)

    assert (job.attempt, job.lost_attempts) == (2, 1)
    assert job.result == {"chain": small.expected(5)}
    assert small.overlaps(site.stamps()) == []
    links[far.name].heal()
    until(lambda: log_has(far, "the lease was lost; nothing more is written"), "the end of it")
    with pytest.raises(LeaseLost), site.database.writing() as session:
        records.record_event(session, lease, "too.late", {})
    attempts = [event.attempt for event in rows.events(site.database, job_id)]
    assert attempts == sorted(attempts), "the first attempt has written after the second began"
    site.kill(near)
    assert site.finished(site.add_job(seed=6)).attempt == 1, "the worker does not work any more"


def open_connection(url: URL) -> socket.socket:
    """Connect to a PostgreSQL as libpq would."""
    folder = str(url.query.get("host", ""))
    if folder.startswith("/"):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(f"{folder}/.s.PGSQL.{url.query.get('port', 5432)}")
        return connection
    return socket.create_connection((url.host, url.port or 5432))


def test_behind_a_proxy_that_lets_nothing_pass(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """The supervisor hangs in its heartbeat: its system is sure that every byte has arrived."""
    with ExitStack() as stack:
        url = stack.enter_context(postgres.scratch_database(postgres_server.required_url()))
        site = stack.enter_context(site_over(url, brokers.Files(tmp_path), tmp_path))
        links: dict[str, Link] = {}
        workers = []
        for _ in range(2):
            between = stack.enter_context(proxy(lambda: open_connection(make_url(url))))
            workers.append(site.start_worker(CSTAR_DATABASE_URL=behind(between.port, url)))
            links[workers[-1].name] = between
        for worker in workers:
            site.await_worker(worker)
        cut_off_whoever_works(site, links, workers)
        for link in links.values():
            link.heal()


def test_on_a_host_whose_cable_is_unplugged(tmp_path: Path) -> None:
    with hosts.network(2) as network, reachable_postgres(network.address) as url:
        broker = brokers.Redis(tmp_path / "broker", network.address)
        with site_over(url, broker, tmp_path) as site:
            workers = [site.start_worker(prefix=host.prefix) for host in network.hosts]
            for worker in workers:
                site.await_worker(worker)
            names = [worker.name for worker in workers]
            links: dict[str, Link] = dict(zip(names, network.hosts, strict=True))
            cut_off_whoever_works(site, links, workers)


def behind(port: int, url: str) -> str:
    """Return the URL of a database as it is reached through a proxy."""
    address = make_url(url).difference_update_query(["host", "port"])
    address = address.set(host="127.0.0.1", port=port)
    return address.render_as_string(hide_password=False)


@contextmanager
def reachable_postgres(address: str) -> Iterator[str]:
    """Yield the URL of an empty database as the hosts of a network reach it."""
    port = brokers.free_port(address)
    with (
        postgres.started_from_wheel(listen=address, port=port) as server,
        postgres.scratch_database(server) as url,
    ):
        reached = make_url(url).difference_update_query(["host", "port"])
        reached = reached.set(host=address, port=port).update_query_dict(SOON)
        yield reached.render_as_string(hide_password=False)


@contextmanager
def site_over(url: str, broker: brokers.Broker, folder: Path) -> Iterator[Site]:
    """Run a scheduler and the broker over a database."""
    database = Database(url)
    upgrade(database)
    made = Site(database, broker, folder)
    try:
        broker.start()
        made.start_scheduler()
        yield made
    finally:
        made.close()
        broker.kill()
        database.dispose()
