"""`python -m stack doctor`: whether this machine and what it is told to use can do the work.

One finding a line, `ok`, `warn` or `fail`, each of the last two with what to do next.
"""

from __future__ import annotations

import json
import platform
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy.orm import Session

from stack.credentials import SECRET_FILE
from store.blobs import BlobStore
from store.database import Database, database_now
from store.measures import WORKER_SILENT_S, measure
from store.migrate import revisions
from store.secret_key import ADVICE, weakness
from store.settings import Settings
from store.submit import IO_QUEUE

Status = Literal["ok", "warn", "fail"]
OLDEST_PYTHON = (3, 11)
LEAST_FREE, LITTLE_FREE = 1 << 30, 10 << 30  # bytes
MOST_SKEW_S = 2.0
MOST_LAG_S = 60.0
PATIENCE_S = 60.0
TORCH = "import torch; print(torch.__version__, torch.cuda.device_count())"


@dataclass(frozen=True)
class Finding:
    """What one check found; `next_step` says what to do about a `warn` or `fail`."""

    check: str
    status: Status
    detail: str
    next_step: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Yield one finding a check, or several; the most one leaves is what the service makes at its
    first start (an empty `cstar.db`, the folder of blobs)."""
    for check in CHECKS:
        name = check.__name__.removeprefix("_")
        try:
            yield from check(settings)
        except Exception as error:  # a check that breaks has found something
            words = str(error).strip().partition("\n")[0] or type(error).__name__
            yield Finding(name, "fail", words, STEPS.get(name, "see the message"))


def report(settings: Settings, *, as_json: bool) -> int:
    """Print the findings; returns 1 if anything fails, else 0."""
    failed = False
    for finding in examine(settings):
        failed |= finding.status == "fail"
        print(json.dumps(asdict(finding)) if as_json else line(finding), flush=True)
    return int(failed)


def line(finding: Finding) -> str:
    """Return a finding for people."""
    step = f"; {finding.next_step}" if finding.next_step else ""
    return f"{finding.status:<5}{finding.check:<10} {finding.detail}{step}"


def _python(_: Settings) -> Iterator[Finding]:
    fine = sys.version_info >= OLDEST_PYTHON
    step = "" if fine else "install Python 3.11 or newer"
    yield Finding("python", "ok" if fine else "fail", platform.python_version(), step)


def _torch(_: Settings) -> Iterator[Finding]:
    if find_spec("torch") is None:
        yield Finding("torch", "ok", "not installed here; only workers need it")
        return
    version, devices = _output([sys.executable, "-c", TORCH]).split()
    yield Finding("torch", "ok", f"{version}, {devices} CUDA devices")


def _database(settings: Settings) -> Iterator[Finding]:
    database = Database(settings.resolved_database_url)
    try:
        current, head = revisions(database)
        if current is None and settings.database_url is None:
            step = "`cstar up` makes its own; for a service elsewhere: set CSTAR_DATABASE_URL"
            yield Finding("database", "warn", "none yet", step)
            return
        where = f"{database.engine.dialect.name} at revision {current or 'none'}"
        if current != head:
            step = "run `python -m store.migrate upgrade`"
            yield Finding("database", "fail", f"{where}, this version needs {head}", step)
            return
        yield Finding("database", "ok", where)
        with database.reading() as session:
            yield _clock(session)
            yield from _service(session, settings)
    finally:
        database.dispose()


def _clock(session: Session) -> Finding:
    """Compare two clocks; of a database that answers slowly its time lies between two of ours."""
    before, theirs, after = datetime.now(UTC), database_now(session), datetime.now(UTC)
    skew_s = (theirs - min(max(theirs, before), after)).total_seconds()
    text = f"the database's clock is {abs(skew_s):.1f} s {'ahead' if skew_s > 0 else 'behind'}"
    if abs(skew_s) <= MOST_SKEW_S:
        return Finding("clock", "ok", text)
    return Finding("clock", "warn", text, "let NTP set both clocks: logs would mislead")


def _service(session: Session, settings: Settings) -> Iterator[Finding]:
    found = measure(session)
    for queue in (settings.job_queue, IO_QUEUE):
        count = found.workers.get(queue, 0)
        text = f"{count} of queue {queue} heard of within {WORKER_SILENT_S:.0f} s"
        step = "" if count else f"start one: its jobs wait (docs/deployment.md, -Q {queue})"
        yield Finding("workers", "ok" if count else "warn", text, step)
    lag_s = found.outbox_lag_s
    text = f"{found.outbox_messages} calls wait to be published, the oldest for {lag_s:.0f} s"
    step = "see that the scheduler runs and reaches the broker" if lag_s > MOST_LAG_S else ""
    yield Finding("scheduler", "fail" if step else "ok", text, step)


def _broker(settings: Settings) -> Iterator[Finding]:
    url = settings.broker_url
    if url is None:
        yield Finding("broker", "ok", "none is set; `make up` starts its own")
        return
    if find_spec("kombu") is None:
        yield Finding("broker", "ok", "no client of it is installed here; the API needs none")
        return
    from kombu.connection import Connection  # noqa: PLC0415  (absent where only the API is)

    with Connection(url, connect_timeout=5) as connection:  # type: ignore[no-untyped-call]
        connection.ensure_connection(max_retries=1, timeout=5)
        yield Finding("broker", "ok", f"{connection.transport.driver_type} answers")


def _blobs(settings: Settings) -> Iterator[Finding]:
    store = BlobStore(settings.resolved_blob_url)
    with store.stage() as staging:
        staging.write(secrets.token_bytes(32))  # no client's bytes, so that they can go again
        blob = staging.commit()
    written = sum(map(len, store.read(blob.sha256)))
    store.delete(blob.sha256)
    scheme = settings.resolved_blob_url.partition(":")[0]
    yield Finding("blobs", "ok", f"{written} bytes written to {scheme}, read and removed")


def _sandbox(settings: Settings) -> Iterator[Finding]:
    if find_spec("worker") is None:
        yield Finding("sandbox", "ok", "no worker is installed here")
        return
    found = json.loads(_output([sys.executable, "-m", "worker.probe"]))
    holes = [name for name in ("network", "writes", "environment") if found[name]]
    text = f"{found['sandbox']}, open to a runner: {', '.join(holes) or 'nothing'}"
    if found["sandbox"] == "bubblewrap":
        step = "keep uploads away from this host, and report it" if holes else ""
        yield Finding("sandbox", "fail" if holes else "ok", text, step)
        return
    wish = "" if settings.sandbox == "off" else "install bubblewrap and allow user namespaces, "
    yield Finding("sandbox", "warn", text, f"{wish}or give uploads a host of their own")


def _disk(settings: Settings) -> Iterator[Finding]:
    folder = settings.data_dir.resolve()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    text = f"{free / (1 << 30):.1f} GiB free for CSTAR_DATA_DIR"
    if free >= LITTLE_FREE:
        yield Finding("disk", "ok", text)
        return
    step = "free some, or move CSTAR_DATA_DIR: jobs will fail with storage_error"
    yield Finding("disk", "warn" if free >= LEAST_FREE else "fail", text, step)


def _secret(settings: Settings) -> Iterator[Finding]:
    own = settings.data_dir / SECRET_FILE
    configured = settings.secret_key.get_secret_value() if settings.secret_key else ""
    secret = configured or (own.read_text().strip() if own.exists() else "")
    if not secret and find_spec("api") is None:
        yield Finding("secret", "ok", "none is set here; only the API needs it")
    elif not secret:
        text = "none is set here; only the API needs it, and `make up` makes its own"
        yield Finding("secret", "warn", text, f"for the API: {ADVICE}")
    elif found := weakness(secret):
        yield Finding("secret", "fail", found, f"{ADVICE}; every API key must then be made anew")
    else:
        yield Finding("secret", "ok", f"{len(secret)} characters")


def _limits(settings: Settings) -> Iterator[Finding]:
    url = settings.rate_limit_url
    if url is None:
        yield Finding("limits", "ok", "each API process counts requests for itself")
        return
    try:
        with Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5) as connection:
            connection.ping()
    except (RedisError, ValueError) as error:
        step = "look at CSTAR_RATE_LIMIT_URL; no request is refused meanwhile"
        yield Finding("limits", "warn", str(error), step)
    else:
        yield Finding("limits", "ok", "the Redis that counts requests answers")


def _output(command: list[str]) -> str:
    """Return what a command prints; raises RuntimeError with its last words."""
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=PATIENCE_S, cwd=Path.cwd()
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "")
    return done.stdout


CHECKS: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
    _python,
    _torch,
    _database,
    _broker,
    _blobs,
    _sandbox,
    _disk,
    _secret,
    _limits,
)
STEPS = {
    "torch": "install it anew: pip install -c constraints.txt torch",
    "database": "look at CSTAR_DATABASE_URL and whether the server runs",
    "broker": "look at CSTAR_BROKER_URL and whether the server runs; new jobs wait meanwhile",
    "blobs": "look at CSTAR_BLOB_URL, its credentials and the space behind it",
    "sandbox": "install bubblewrap and allow user namespaces (docs/deployment.md)",
}
