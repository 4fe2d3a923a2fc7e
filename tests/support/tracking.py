"""A real MLflow tracking server over SQLite and a folder."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from stack.children import Child
from tests.e2e.watching import until
from tests.support.brokers import free_port

STOP_S = 20.0
# `mlflow-skinny` serves by gunicorn; the other server would need pandas, pyarrow and more.
_SERVED_BY = "--threads 4 --no-control-socket --graceful-timeout 1"
_ENVIRONMENT = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


@contextmanager
def tracking_server(folder: Path) -> Iterator[str]:
    """Yield the address of a running server, which is stopped afterwards."""
    folder.mkdir()
    port = free_port()
    child = Child("mlflow", _command(folder, port), folder / "mlflow.log", _ENVIRONMENT)
    child.start()
    assert child.process is not None
    address = f"http://127.0.0.1:{port}"
    try:
        until(lambda: _answers(address, child), "MLflow to answer")
        yield address
    finally:
        os.killpg(child.process.pid, signal.SIGTERM)  # the command's own child serves
        child.stop(grace_s=STOP_S)


def _command(folder: Path, port: int) -> list[str]:
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1", "--gunicorn-opts", _SERVED_BY]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    return [*command, "--artifacts-destination", str(folder / "artifacts")]


def _answers(address: str, child: Child) -> bool:
    assert child.process is not None
    assert child.process.poll() is None, child.last_words()
    try:
        return httpx.get(f"{address}/health", timeout=2.0).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
