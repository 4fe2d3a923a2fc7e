"""The Celery app: `celery -A worker.app worker -Q cpu.default -c 1`."""

from __future__ import annotations

import ctypes
import mmap
import signal
import threading
from functools import lru_cache
from typing import Any

from celery import Celery
from celery.signals import (
    setup_logging,
    worker_init,
    worker_process_init,
    worker_ready,
    worker_shutdown,
    worker_shutting_down,
)

from store.database import Database
from store.logs import configure_logging
from store.settings import settings
from store.tracing import TracingUnavailable, configure_tracing
from worker.broker import broker_url, celery_configuration
from worker.executors import SandboxUnavailable, sandbox_name
from worker.identity import keep_present, register
from worker.workspace import sweep

app = Celery("cstar", include=["worker.tasks"])
app.conf.update(celery_configuration(broker_url(settings()), settings()))

TASK_NAME = "cstar.run_job"

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_drain = mmap.mmap(-1, 1)  # shared with the forked pool processes
_gone = threading.Event()


def draining() -> bool:
    """Say whether this worker was asked to shut down and should give its job back."""
    return _drain[0] != 0


@setup_logging.connect
def _configure_logging(**_: Any) -> None:
    configure_logging("worker", settings().log_format)


@worker_init.connect
def _configure_tracing(**_: Any) -> None:
    """Pool processes inherit what is set here, and open connections of their own."""
    try:
        configure_tracing("cstar-worker", settings().traces)
    except TracingUnavailable as error:
        raise SystemExit(str(error)) from None


@worker_init.connect
def _refuse_without_sandbox(**_: Any) -> None:
    try:
        sandbox_name()
    except SandboxUnavailable as error:
        raise SystemExit(str(error)) from None


@worker_init.connect
@worker_process_init.connect
def _hide_credentials(**_: Any) -> None:
    """Keep the environment of this process from a runner of the same user without a sandbox."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)


@worker_init.connect
def _sweep(**_: Any) -> None:
    sweep(settings().data_dir.resolve() / "work")


@worker_ready.connect
def _announce(sender: Any, **_: Any) -> None:
    """Celery says this once more after every reconnection to the broker."""
    queues = tuple(sorted(queue.name for queue in sender.task_consumer.queues))
    register(_presence(queues), queues=queues)


@lru_cache
def _presence(queues: tuple[str, ...]) -> Database:
    """Return the database of the thread that shows this worker lives, started with it."""
    database = Database(settings().resolved_database_url)
    threading.Thread(target=keep_present, args=(database, queues, _gone), daemon=True).start()
    return database


@worker_shutdown.connect
def _leave(**_: Any) -> None:
    _gone.set()


@worker_shutting_down.connect
def _start_draining(**_: Any) -> None:
    _drain[0] = 1


@worker_process_init.connect
def _die_with_parent(**_: Any) -> None:
    """A pool process whose worker was killed must not go on as an orphan."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
