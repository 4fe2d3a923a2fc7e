"""The API as a process of its own, over a database and folder of a test."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from stack.children import Child
from store.database import Database
from tests.e2e.watching import until

SECRET = "of the tests, and of nothing else"
STOP_S = 20.0


@contextmanager
def serving(database: Database, data_dir: Path, **settings: Any) -> Iterator[tuple[str, Child]]:
    """Yield the address of a running API and its process, which is stopped afterwards."""
    url = database.engine.url.render_as_string(hide_password=False)
    values = {"data_dir": data_dir, "database_url": url, "secret_key": SECRET, **settings}
    environment = {f"CSTAR_{name.upper()}": str(value) for name, value in values.items()}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-m", "api", "--fd", str(listener.fileno())]
        child = Child(
            "api", command, data_dir / "api.log", environment, inherited=[listener.fileno()]
        )
        child.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            until(lambda: _answers(address, child), "the API to answer")
            yield address, child
        finally:
            child.stop(grace_s=STOP_S)


def _answers(address: str, child: Child) -> bool:
    assert child.process is not None
    assert child.process.poll() is None, child.last_words()
    try:
        return httpx.get(f"{address}/healthz", timeout=2.0).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
