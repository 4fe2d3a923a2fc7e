"""`python -m benchmarks.load`: the load on SQLite or PostgreSQL, written to benchmarks/results.

Bounded (jobs and time), on 127.0.0.1 alone, and stops everything it started. PostgreSQL is the
server named by `--postgres`, in which it makes and drops a database of its own; SQLite otherwise.
"""

from __future__ import annotations

import argparse
import json
import secrets
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import func, make_url, select

from benchmarks.load.away import Away, without_broker
from benchmarks.load.crowd import Crowd, serve_crowd
from benchmarks.load.polls import Polled
from benchmarks.load.ratio import p15
from benchmarks.load.service import Service, service
from benchmarks.machine import commit, hardware, load_average
from store.states import JobState
from store.tables import Job, JobAttempt

LOCKED = ("database is locked", "deadlock detected")


@dataclass(frozen=True)
class Load:
    """How much: jobs, event readers, pollers, workers, and rounds of the comparison of P15."""

    jobs: int = 1000
    streams: int = 50
    pollers: int = 20
    workers: int = 4
    rounds: int = 20
    seconds: float = 1.0
    posts: int = 30


def measure(database_url: str | None, load: Load) -> dict[str, Any]:
    """Put the load on a service of its own; returns what was found as plain data."""
    with (
        tempfile.TemporaryDirectory() as folder,
        service(Path(folder), database_url, workers=load.workers) as running,
    ):
        crowd = serve_crowd(running, jobs=load.jobs, streams=load.streams, pollers=load.pollers)
        away = without_broker(running, jobs=load.posts)
        polled = p15(running, crowd.job_ids[0], rounds=load.rounds, seconds=load.seconds)
        return _found(running, crowd, away, polled)


def _found(running: Service, crowd: Crowd, away: Away, polled: dict[str, Polled]) -> dict[str, Any]:
    logs = running.logs()
    with running.database.reading() as session:
        attempts = session.scalars(select(func.count()).select_from(JobAttempt)).one()
        jobs = session.scalars(select(func.count()).select_from(Job)).one()
    succeeded = sum(state == JobState.SUCCEEDED for state in crowd.states.values())
    return {
        "database": running.database.engine.dialect.name,
        "jobs": len(crowd.job_ids),
        "succeeded": succeeded,
        "lost": len(crowd.job_ids) - succeeded,
        "attempts_per_job": attempts / jobs,
        "locked": sum(logs.count(words) for words in LOCKED),
        "answers": {str(status): count for status, count in sorted(crowd.statuses.items())},
        "events": crowd.events,
        "event_gaps": crowd.gaps,
        "jobs_per_second": len(crowd.job_ids) / crowd.took_s,
        "under_load": {"post": _times(crowd.post_s), "poll": _times(crowd.poll_s)},
        "broker_down": {**asdict(away), "ratio": away.ratio},
        "p15": {
            **{name: asdict(figures) for name, figures in polled.items()},
            "ratio": polled["ours"].per_second / polled["bare"].per_second,
            "cpu_ratio": polled["bare"].cpu_ms / polled["ours"].cpu_ms,
            "p95_ratio": polled["ours"].p95_ms / polled["bare"].p95_ms,
            "p99_ratio": polled["ours"].p99_ms / polled["bare"].p99_ms,
        },
    }


def _times(seconds: list[float]) -> dict[str, float]:
    cuts = quantiles(seconds, n=100)
    return {f"p{q}_ms": 1000 * cuts[q - 1] for q in (50, 95, 99)} | {"requests": len(seconds)}


@contextmanager
def scratch_database(server: str) -> Iterator[str]:
    """Make an empty database on a PostgreSQL server; yields its URL and drops it."""
    name = f"cstar_load_{secrets.token_hex(6)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield make_url(server).set(database=name).render_as_string(hide_password=False)
        finally:
            drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
            connection.execute(drop)


def page(results: dict[str, Any]) -> str:
    """Return the results as a page."""
    rows = results["databases"]
    head = "| | " + " | ".join(row["database"] for row in rows) + " |\n"
    text = "# The service under load\n\n"
    text += (
        "`python -m benchmarks.load`, and once more with `--postgres URL`. Cheap runners, "
        "everything else real. Every event reader holds the event stream of one job after the "
        "other. P15 is the API beside a bare FastAPI route that reads the "
        "same row, in turns, at rest. Compare ratios only: other work ran on the machine.\n\n"
    )
    text += head + "|---|" + "---|" * len(rows) + "\n"
    return text + "".join(
        f"| {name} | " + " | ".join(cell(row) for row in rows) + " |\n"
        for name, cell in _LINES.items()
    )


_LINES: dict[str, Any] = {
    "machine": lambda r: f"{r['hardware']}, load average {r['load_average']}",
    "commit": lambda r: str(r["commit"]),
    "jobs / workers / pollers / event readers": lambda r: " / ".join(
        str(r["load"][name]) for name in ("jobs", "workers", "pollers", "streams")
    ),
    "succeeded / lost": lambda r: f"{r['succeeded']} / {r['lost']}",
    "attempts per job": lambda r: f"{r['attempts_per_job']:.3f}",
    '"database is locked", deadlocks': lambda r: str(r["locked"]),
    "answers by status": lambda r: ", ".join(f"{s}: {n}" for s, n in r["answers"].items()),
    "events read / gaps": lambda r: f"{r['events']} / {r['event_gaps']}",
    "jobs per second": lambda r: f"{r['jobs_per_second']:.1f}",
    "`GET /v1/jobs/{id}` under load, p50 / p95 / p99": lambda r: _line(r, "poll"),
    "`POST /v1/jobs`, p50 / p95 / p99": lambda r: _line(r, "post"),
    "POST with the broker down / up": lambda r: (
        f"{r['broker_down']['ratio']:.2f}, all ran: {r['broker_down']['all_ran']}"
    ),
    "P15: polls a second, ours / bare": lambda r: f"{r['p15']['ratio']:.2f}",
    "P15: polls a second of processor time, ours / bare": lambda r: f"{r['p15']['cpu_ratio']:.2f}",
    "P15: p95, p99, ours / bare": lambda r: (
        f"{r['p15']['p95_ratio']:.2f}, {r['p15']['p99_ratio']:.2f}"
    ),
}


def _line(row: dict[str, Any], what: str) -> str:
    times = row["under_load"][what]
    return " / ".join(f"{times[f'p{q}_ms']:.0f}" for q in (50, 95, 99)) + " ms"


def main() -> None:
    """Measure on one database and put it into `load.json` and `load.md`, beside the other."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--postgres", help="URL of a server on which a database may be made")
    parser.add_argument("--jobs", type=int, default=Load.jobs)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    load = Load(jobs=arguments.jobs)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # after everything it started
    with _database(arguments.postgres) as url:
        row = measure(url, load) | _circumstances(load)
    path = arguments.out / "load.json"
    known = json.loads(path.read_text())["databases"] if path.exists() else []
    rows = [other for other in known if other["database"] != row["database"]] + [row]
    results = {"databases": sorted(rows, key=lambda one: str(one["database"]), reverse=True)}
    path.write_text(json.dumps(results, indent=1) + "\n")
    (arguments.out / "load.md").write_text(page(results))
    print((arguments.out / "load.md").read_text())


def _database(server: str | None) -> AbstractContextManager[str | None]:
    return nullcontext() if server is None else scratch_database(server)


def _circumstances(load: Load) -> dict[str, Any]:
    return {
        "load": asdict(load),
        "commit": commit(),
        "hardware": hardware(),
        "load_average": load_average(),
    }


if __name__ == "__main__":
    main()
