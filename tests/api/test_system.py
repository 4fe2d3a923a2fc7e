"""What an operator asks, and how the process starts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.main import create_app
from store.database import database_now
from store.settings import Settings
from store.tables import Worker
from tests.api.conftest import SECRET, start
from tests.api.world import World

HEAVY = """
import sys
import api.main
print(*sorted({"torch", "celery", "kombu", "numpy", "onnx", "cstar_core"} & set(sys.modules)))
"""


def test_the_service_is_healthy_ready_and_has_a_version(anonymous: Any) -> None:
    assert anonymous.get("/healthz").json() == {"status": "ok"}
    assert anonymous.get("/readyz").json() == {"status": "ok"}
    assert anonymous.get("/version").json() == {
        "version": version("cstar-service"),
        "api": "v1",
        "sandbox": None,
    }


def test_the_description_is_served(anonymous: Any) -> None:
    assert anonymous.get("/openapi.json").json()["info"]["title"] == "CSTAR"


def test_workers_are_listed(client: Any, world: World) -> None:
    assert client.get("/v1/workers").json() == {"data": []}
    with world.database.writing() as session:
        now = database_now(session)
        facts = {"device": "cpu"}
        session.add(
            Worker(
                id="wrk_1",
                hostname="host",
                pid=1,
                queues=["cpu.default"],
                facts=facts,
                started_at=now,
                last_seen_at=now,
            )
        )
    worker = client.get("/v1/workers").json()["data"][0]
    assert (worker["id"], worker["queues"], worker["facts"]) == ("wrk_1", ["cpu.default"], facts)


def test_importing_the_application_loads_neither_torch_nor_celery() -> None:
    command = [sys.executable, "-c", HEAVY]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""


def test_the_application_does_not_start_without_its_secret(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"secret_key": None}))
    with pytest.raises(RuntimeError, match="CSTAR_SECRET_KEY"), start(app):
        pass


def environment(settings: Settings, **changes: str) -> dict[str, str]:
    return {
        **os.environ,
        "CSTAR_DATABASE_URL": str(settings.database_url),
        "CSTAR_BLOB_URL": str(settings.blob_url),
        "CSTAR_SECRET_KEY": SECRET,
        **changes,
    }


def test_the_command_says_what_is_missing(settings: Settings) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "api"],
        env=environment(settings, CSTAR_SECRET_KEY=""),
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("CSTAR_SECRET_KEY is not set")


def test_the_command_serves_an_inherited_socket(settings: Settings, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, (tmp_path / "log").open("w") as log:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        server = subprocess.Popen(
            [sys.executable, "-m", "api", "--fd", str(listening.fileno())],
            env=environment(settings),
            pass_fds=[listening.fileno()],
            stderr=log,
        )
    try:
        # The socket already listens: the request waits in its queue until the server is up.
        response = httpx.get(f"{url}/v1/jobs", timeout=120)
    finally:
        server.terminate()
        status = server.wait(timeout=60)
    assert response.status_code == 401
    assert "server" not in response.headers
    log_text = (tmp_path / "log").read_text()
    assert status == -signal.SIGTERM, log_text
    assert "Application shutdown complete" in log_text
    assert "/v1/jobs" not in log_text
