"""A service of its own for a load: processes as the stack starts them, and rows to begin with."""

from __future__ import annotations

import secrets
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from stack.broker import embedded_broker
from stack.children import Child
from store.blobs import BlobStore, remember
from store.database import Database, database_now
from store.identifiers import new_id
from store.keys import create_key, create_tenant
from store.migrate import upgrade
from store.settings import Settings
from store.states import Status
from store.tables import Dataset, File, Model

READY_WITHIN_S = 180.0
GRACE_S = 20.0
SHAPE = {"shape": [3, 8, 8], "mean": [0.5] * 3, "std": [0.2] * 3}


@dataclass
class Service:
    """A running service; `job` is the body of a job that it takes."""

    settings: Settings
    database: Database
    url: str
    key: str
    job: dict[str, Any]
    children: dict[str, Child] = field(default_factory=dict)

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a client with a key."""
        return {"Authorization": f"Bearer {self.key}"}

    def logs(self) -> str:
        """Everything its processes have logged."""
        return "".join(child.log.read_text(errors="replace") for child in self.children.values())


@contextmanager
def service(folder: Path, database_url: str | None, *, workers: int) -> Iterator[Service]:
    """Run broker, API, scheduler and `workers` cheap workers; all are gone afterwards."""
    secret = secrets.token_hex(32)
    settings = Settings(data_dir=folder, database_url=database_url, sandbox="off")
    database = Database(settings.resolved_database_url)
    upgrade(database)
    key, job = _rows(database, BlobStore(settings.resolved_blob_url), secret)
    broker_url, broker = embedded_broker(settings, folder)
    assert broker is not None, "no Redis or Valkey server to be started"
    with ExitStack() as stack, socket.create_server(("127.0.0.1", 0)) as listener:
        stack.callback(database.dispose)
        stack.callback(shutil.rmtree, broker.command[broker.command.index("--dir") + 1])
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        running = Service(settings, database, url, key, job, {"broker": broker})
        environment = _environment(settings, broker_url, secret)
        for child in _processes(folder, environment, listener.fileno(), workers):
            running.children[child.name] = child
        stack.callback(_stop_all, running)
        for child in running.children.values():
            child.start()
        _wait_until_ready(running, workers)
        yield running


def _stop_all(running: Service) -> None:
    """Ask all but the broker to end at once, wait for them, then stop it too."""
    started = [child for child in running.children.values() if child.process is not None]
    for child in started[1:]:
        assert child.process is not None
        child.process.terminate()
    for child in reversed(started):
        child.stop(grace_s=GRACE_S)


def _environment(settings: Settings, broker_url: str, secret: str) -> dict[str, str]:
    return {
        "CSTAR_DATA_DIR": str(settings.data_dir),
        "CSTAR_DATABASE_URL": settings.resolved_database_url,
        "CSTAR_BLOB_URL": settings.resolved_blob_url,
        "CSTAR_BROKER_URL": broker_url,
        "CSTAR_SECRET_KEY": secret,
        "CSTAR_SANDBOX": "off",
        "CSTAR_RATE_LIMIT_PER_MINUTE": "100000000",  # counted as ever, and never too many
    }


def _processes(
    folder: Path, environment: dict[str, str], descriptor: int, workers: int
) -> Iterator[Child]:
    python = sys.executable
    api = [python, "-m", "api", "--fd", str(descriptor)]
    yield Child("api", api, folder / "api.log", environment, inherited=[descriptor])
    scheduler = [python, "-m", "worker.scheduler"]
    yield Child("scheduler", scheduler, folder / "scheduler.log", environment)
    for number in range(workers):
        name = f"worker{number}"
        command = [python, "-m", "celery", "-A", "benchmarks.load.cheap_worker", "worker"]
        command += ["-Q", "cpu.default", "-P", "prefork", "-c", "1", "-n", f"{name}@%h"]
        command += ["--without-gossip", "--without-mingle", "--loglevel", "info"]
        yield Child(name, command, folder / f"{name}.log", environment)


def _wait_until_ready(running: Service, workers: int) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    with httpx.Client(base_url=running.url, headers=running.headers, timeout=30.0) as client:
        while len(client.get("/v1/workers").json()["data"]) < workers:
            assert time.monotonic() < deadline, running.logs()
            time.sleep(0.1)


def _rows(database: Database, blobs: BlobStore, secret: str) -> tuple[str, dict[str, Any]]:
    """Add a tenant with a validated model and data set; returns its key and the body of a job."""
    with blobs.stage() as staging:
        staging.write(b"bytes that no cheap runner reads")
        blob = staging.commit()
    with database.writing() as session:
        remember(session, blob)
        now, tenant_id = database_now(session), create_tenant(session, "load").id
        own = {"tenant_id": tenant_id, "created_at": now}
        stored = {"sha256": blob.sha256, "bytes": blob.bytes}
        purpose = {"filename": "file", "purpose": "checkpoint"}
        file = File(id=new_id("file"), **purpose, **stored, **own)
        session.add(file)
        session.flush()
        valid = {"file_id": file.id, "requested": {}, "status": Status.READY, "reasons": [], **own}
        architecture = {"name": "resnet8_cifar", "arguments": {}}
        model = Model(
            id=new_id("mdl"), name="small", version=1, architecture=architecture, input=SHAPE,
            num_classes=10, parameters=1000, macs=50_000, weights_sha256=blob.sha256,
            limits={"min_parameters": 100, "min_macs": 7000, "min_bytes": 480}, **valid,
        )  # fmt: skip
        dataset = Dataset(
            id=new_id("dts"), name="digits", num_examples={"train": 200, "test": 50},
            shape=SHAPE["shape"], num_classes=10, content_sha256="ab" * 32,
            blob_sha256=blob.sha256, **valid,
        )  # fmt: skip
        session.add_all([model, dataset])
        key = create_key(session, tenant_id=tenant_id, name="load", secret_key=secret)
    targets = {"compression": {"ratio": 4.0}, "robustness": {"epsilon": 0.03}}
    return key, {"model_id": model.id, "dataset_id": dataset.id, "targets": targets}
