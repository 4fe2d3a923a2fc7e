"""One embedded stack for all end-to-end tests, in which faults heal quickly.

Its leases are as short as they may be: no stall of the machine takes a job from a living worker.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cstar_client import Client
from stack.demo.digits import load_digits
from stack.embedded import Stack
from store.settings import Settings
from tests.e2e.requests import Uploads, upload_digits

TRACES = "traces.jsonl"
SETTINGS = {
    "lease_s": 15.0,
    "heartbeat_s": 0.5,
    "redispatch_s": 3.0,
    "checkpoint_interval_s": 0.2,
    "cancel_grace_s": 10.0,
    "runner_threads": 1,
    "max_attempts": 5,
}


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running stack whose dead parts are started again, as `make up` does it."""
    data_dir = tmp_path_factory.mktemp("stack")
    traces = (data_dir / TRACES).as_uri()
    settings = Settings(data_dir=data_dir, log_format="json", traces=traces, **SETTINGS)
    stop = threading.Event()
    with Stack(settings) as running:
        keeper = threading.Thread(target=_keep_alive, args=(running, stop))
        keeper.start()
        yield running
        stop.set()
        keeper.join()


def _keep_alive(stack: Stack, stop: threading.Event) -> None:
    while not stop.wait(0.2):
        stack.revive()


@pytest.fixture(scope="session")
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.url, stack.api_key) as client:
        yield client


@pytest.fixture(scope="session")
def digits_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return load_digits().save(tmp_path_factory.mktemp("data") / "digits.npz")


@pytest.fixture(scope="session")
def uploads(client: Client, digits_file: Path) -> Uploads:
    """The demo's network and data, validated by the stack."""
    return upload_digits(client, digits_file)
