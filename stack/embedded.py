"""The embedded stack: broker, migrations, API, workers and scheduler on one machine."""

from __future__ import annotations

import shutil
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import httpx

from stack.broker import embedded_broker
from stack.children import Child
from stack.credentials import first_key, secret_key, write_stack_file
from store.database import Database
from store.migrate import upgrade
from store.settings import Settings

READY_WITHIN_S = 120.0
STOP_MARGIN_S = 5.0


class StackFailed(Exception):
    """A part of the stack did not come up; the message holds the end of its log."""


class Stack:
    """Starts everything, keeps it alive, and stops it in order; use as a context manager."""

    def __init__(self, settings: Settings, *, port: int = 0) -> None:
        self.settings = settings
        self.data_dir = settings.data_dir.resolve()
        self.logs = self.data_dir / "logs"
        self._listener = socket.create_server(("127.0.0.1", port))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.api_key = ""
        self.children: dict[str, Child] = {}

    def __enter__(self) -> Stack:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Bring everything up and return when jobs can be submitted; raises StackFailed."""
        self.logs.mkdir(parents=True, exist_ok=True)
        broker_url, broker = embedded_broker(self.settings, self.logs)
        if broker is not None:
            self._add(broker)
        configured = self.settings.secret_key
        secret = configured.get_secret_value() if configured else secret_key(self.data_dir)
        database = Database(self.settings.resolved_database_url)
        upgrade(database)
        self.api_key = first_key(database, self.data_dir, secret)
        database.dispose()
        environment = self._environment(broker_url)
        for child in self._services(environment, secret):
            self._add(child)
        self._wait_until_ready()
        write_stack_file(self.data_dir, url=self.url, api_key=self.api_key)

    def revive(self) -> list[str]:
        """Start again whatever has died; returns the names."""
        return [child.name for child in self.children.values() if child.revive()]

    def stop(self) -> None:
        """Stop everything: workers first, so that they can give their jobs back."""
        grace_s = self.settings.cancel_grace_s + STOP_MARGIN_S
        for child in reversed(self.children.values()):
            child.stop(grace_s=grace_s)
        self._listener.close()
        broker = self.children.get("broker")
        if broker is not None:
            folder = broker.command[broker.command.index("--dir") + 1]
            shutil.rmtree(folder, ignore_errors=True)

    def _add(self, child: Child) -> None:
        self.children[child.name] = child
        child.start()

    def _services(self, environment: Mapping[str, str], secret: str) -> list[Child]:
        descriptor = self._listener.fileno()
        api = [sys.executable, "-m", "api", "--fd", str(descriptor)]
        with_secret = {**environment, "CSTAR_SECRET_KEY": secret}
        if self.settings.metrics_token is not None:
            with_secret["CSTAR_METRICS_TOKEN"] = self.settings.metrics_token.get_secret_value()
        return [
            Child("api", api, self._log("api"), with_secret, inherited=[descriptor]),
            Child(
                "scheduler",
                [sys.executable, "-m", "worker.scheduler"],
                self._log("scheduler"),
                environment,
            ),
            self._worker("jobs", self.settings.job_queue, ["prefork", "1"], environment),
            self._worker("io", "io", ["threads", "2"], environment),
        ]

    def _environment(self, broker_url: str) -> dict[str, str]:
        """Return this stack's settings for its processes, the secrets left out."""
        secrets = {"secret_key", "metrics_token"}
        plain = self.settings.model_dump(exclude_none=True, exclude=secrets)
        return {f"CSTAR_{name.upper()}": str(value) for name, value in plain.items()} | {
            "CSTAR_DATA_DIR": str(self.data_dir),
            "CSTAR_DATABASE_URL": self.settings.resolved_database_url,
            "CSTAR_BLOB_URL": self.settings.resolved_blob_url,
            "CSTAR_BROKER_URL": broker_url,
        }

    def _worker(
        self, name: str, queue: str, pool: list[str], environment: Mapping[str, str]
    ) -> Child:
        kind, concurrency = pool
        command = [sys.executable, "-m", "celery", "-A", "worker.app", "worker"]
        command += ["-Q", queue, "-P", kind, "-c", concurrency, "-n", f"{name}@%h"]
        command += ["--without-gossip", "--without-mingle", "--loglevel", "info"]
        return Child(name, command, self._log(name), environment)

    def _log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        wanted = {"io", self.settings.job_queue}
        with httpx.Client(base_url=self.url, timeout=5.0) as client:
            while not wanted <= self._queues_served(client):
                self._check_children()
                if time.monotonic() > deadline:
                    raise StackFailed(f"not ready after {READY_WITHIN_S:.0f} s; see {self.logs}")
                time.sleep(0.1)

    def _queues_served(self, client: httpx.Client) -> set[str]:
        """Return the queues of the workers that this stack has started and the API can see."""
        running = {str(c.process.pid) for c in self.children.values() if c.process is not None}
        try:
            headers = {"Authorization": f"Bearer {self.api_key}"}
            answer = client.get("/v1/workers", headers=headers, params={"limit": 100})
        except httpx.TransportError:
            return set()
        if answer.status_code != httpx.codes.OK:
            return set()
        workers = answer.json()["data"]
        return {q for w in workers if str(w["pid"]) in running for q in w["queues"]}

    def _check_children(self) -> None:
        for child in self.children.values():
            if child.process is not None and child.process.poll() is not None:
                raise StackFailed(f"{child.name} ended at once:\n{child.last_words()}")
