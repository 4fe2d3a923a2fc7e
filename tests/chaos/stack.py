"""The embedded stack with several job workers and a broker that is ours to kill."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import TracebackType

from stack.children import Child
from stack.embedded import Stack
from store.settings import Settings
from tests.support import small
from tests.support.brokers import Broker
from tests.support.site import CHECKOUT

LOOK_S = 0.2


class ChaosStack(Stack):
    """Keeps its processes alive as `make up` does; the broker comes back by `revive` as well."""

    def __init__(self, settings: Settings, broker: Broker, *, workers: int) -> None:
        super().__init__(settings)
        self.broker = broker
        self.job_workers = [f"jobs-{number}" for number in range(1, workers + 1)]
        self.stamps_file = self.data_dir / "stamps"
        self.broker_lock = threading.Lock()
        self._stop = threading.Event()
        self._keeper = threading.Thread(target=self._keep_alive)

    def start(self) -> None:
        """Bring everything up, and keep it so."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.stamps_file.touch()
        self.broker.start()
        super().start()
        self._keeper.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._keeper.join()
        super().__exit__(kind, error, trace)

    def _keep_alive(self) -> None:
        while not self._stop.wait(LOOK_S):
            with self.broker_lock:
                self.broker.start()
            self.revive()

    def _services(self, environment: Mapping[str, str], secret: str) -> list[Child]:
        api, scheduler, *_ = super()._services(environment, secret)
        return [api, scheduler, *(self._small(name, environment) for name in self.job_workers)]

    def _small(self, name: str, environment: Mapping[str, str]) -> Child:
        """Return a worker of all queues that gives small models to the small runner."""
        queues = f"{self.settings.job_queue},io"
        child = self._worker(name, queues, ["prefork", "1"], environment)
        app = {"worker.app": "tests.support.small_app"}
        child.command = [app.get(part, part) for part in child.command]
        return child

    def _environment(self, broker_url: str) -> dict[str, str]:
        extra = {small.STAMPS: str(self.stamps_file), "PYTHONPATH": str(CHECKOUT)}
        return {**super()._environment(broker_url), **extra}
