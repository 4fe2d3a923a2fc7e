"""Fixtures of the worker's tests."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from store.blobs import BlobStore
from store.database import Database
from store.settings import Settings, settings
from tests.support.requirements import require
from tests.worker.fake_runner import FakeRunner
from tests.worker.shop import PATIENCE_S, Shop
from worker import executors

Choose = Callable[[str], None]


@pytest.fixture(scope="session")
def broker_is_set() -> None:
    """Celery's app can be imported, as in a process of the stack; nothing listens at its broker."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CSTAR_BROKER_URL", "redis+socket:///nowhere/broker.sock")
        settings.cache_clear()
        importlib.import_module("worker.tasks")
    settings.cache_clear()


@pytest.fixture
def shop(sqlite_database: Database, blob_store: BlobStore, tmp_path: Path) -> Shop:
    """Beats that are fast, so that a test sees their effect at once."""
    configuration = Settings(
        data_dir=tmp_path / "data",
        heartbeat_s=0.01,
        cancel_grace_s=PATIENCE_S,
        stall_timeout_s=PATIENCE_S,
    )
    return Shop(sqlite_database, blob_store, configuration)


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRunner]:
    """What the supervisor starts in this test; none is left when the test ends."""
    fake = FakeRunner()
    monkeypatch.setattr("worker.supervisor.start_runner", fake)
    monkeypatch.setattr("worker.supervisor.TICK_S", 0.02)
    yield fake
    for process in fake.started:
        left = process.returncode is None
        executors.end(process)
        assert not left, "the supervisor left its runner behind"


@pytest.fixture
def choose_sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Choose]:
    """Set `CSTAR_SANDBOX` for this test: `off`, `auto` or `required`."""

    def choose(name: str) -> None:
        chosen = Settings.model_validate({"sandbox": name})
        monkeypatch.setattr(executors, "settings", lambda: chosen)
        executors.sandbox_name.cache_clear()

    yield choose
    executors.sandbox_name.cache_clear()


@pytest.fixture
def bubblewrap(choose_sandbox: Choose) -> None:
    """Processes are started in bubblewrap; without it the test is reported as not run."""
    choose_sandbox("auto")
    works = executors.sandbox_name() == "bubblewrap"
    require("bubblewrap", works, "bwrap is not installed or may not create namespaces here")


@pytest.fixture
def plain(choose_sandbox: Choose) -> None:
    """Processes are started without a sandbox."""
    choose_sandbox("off")


@pytest.fixture(params=["plain", "bubblewrap"])
def either(request: pytest.FixtureRequest) -> str:
    """Processes are started in each of the two ways."""
    request.getfixturevalue(request.param)
    return str(request.param)
