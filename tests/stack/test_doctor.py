"""The doctor finds what is wrong, says what to do next, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from pydantic import SecretStr

from stack import doctor
from stack.broker import embedded_broker
from stack.doctor import Finding, examine, line
from store.database import Database, database_now
from store.lifecycle import dispatch
from store.settings import Settings
from store.tables import Job, OutboxMessage, Worker
from tests.support import rows

QUICK = (doctor._python, doctor._database, doctor._broker, doctor._blobs, doctor._disk,
         doctor._secret, doctor._limits)  # fmt: skip
GOOD_SECRET = "0123456789abcdef" * 4
PATIENCE_S = 60.0


@pytest.fixture
def settings(tmp_path: Path, database: Database) -> Settings:
    url = database.engine.url.render_as_string(hide_password=False)
    return Settings(data_dir=tmp_path, database_url=url, secret_key=SecretStr(GOOD_SECRET))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the checks that start no process."""
    monkeypatch.setattr(doctor, "CHECKS", QUICK)


def found(settings: Settings, **changes: Any) -> dict[str, Finding]:
    """Return the findings by check; of several the last."""
    return {one.check: one for one in examine(settings.model_copy(update=changes))}


def heard_of(database: Database, *queues: str, silent_s: float = 0.0) -> None:
    with database.writing() as session:
        seen = database_now(session) - timedelta(seconds=silent_s)
        facts = {"hostname": "host", "pid": 1, "queues": list(queues), "facts": {}}
        session.add(Worker(id="wrk_1", **facts, started_at=seen, last_seen_at=seen))


@pytest.mark.usefixtures("quick")
def test_all_is_well_where_all_is_well(settings: Settings, database: Database) -> None:
    heard_of(database, "cpu.default", "io")
    findings = list(examine(settings))
    assert {one.status for one in findings} == {"ok"}, findings
    assert not [one for one in findings if one.next_step]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("changes", "check", "status", "word"),
    [
        ({"database_url": "postgresql://nobody@127.0.0.1:1/none"}, "database", "fail", "DATABASE"),
        ({"broker_url": "redis://127.0.0.1:1/0"}, "broker", "fail", "CSTAR_BROKER_URL"),
        ({"blob_url": "file:///proc/none"}, "blobs", "fail", "CSTAR_BLOB_URL"),
        ({"secret_key": SecretStr("changeme")}, "secret", "fail", "openssl rand"),
        ({"secret_key": SecretStr("a" * 64)}, "secret", "fail", "openssl rand"),
        ({"secret_key": None}, "secret", "warn", "CSTAR_SECRET_KEY"),
        ({"rate_limit_url": "redis://127.0.0.1:1/0"}, "limits", "warn", "CSTAR_RATE_LIMIT_URL"),
        ({"rate_limit_url": "127.0.0.1:6379"}, "limits", "warn", "CSTAR_RATE_LIMIT_URL"),
    ],
)
def test_what_is_wrong_is_said_with_the_next_step(
    settings: Settings, changes: dict[str, Any], check: str, status: str, word: str
) -> None:
    finding = found(settings, **changes)[check]
    assert finding.status == status
    assert word in finding.next_step
    assert finding.next_step in line(finding)


@pytest.mark.usefixtures("quick")
def test_a_host_without_the_api_needs_no_secret(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        doctor, "find_spec", lambda name: None if name == "api" else find_spec(name)
    )
    assert found(settings, secret_key=None)["secret"].status == "ok"


@pytest.mark.usefixtures("quick")
def test_a_database_of_another_version_is_noticed(tmp_path: Path, settings: Settings) -> None:
    finding = found(settings, database_url=f"sqlite:///{tmp_path / 'bare.db'}")["database"]
    assert (finding.status, finding.next_step) == ("fail", "run `python -m store.migrate upgrade`")


@pytest.mark.usefixtures("quick")
def test_a_queue_without_a_worker_is_a_warning(settings: Settings, database: Database) -> None:
    heard_of(database, "cpu.default", "io", silent_s=999)
    workers = [one for one in examine(settings) if one.check == "workers"]
    assert [one.status for one in workers] == ["warn", "warn"]


@pytest.mark.usefixtures("quick")
def test_an_outbox_that_nobody_publishes_is_a_failure(
    settings: Settings, database: Database
) -> None:
    job_id = rows.add_job(database)
    with database.writing() as session:
        dispatch(session, session.get_one(Job, job_id))
        call = session.query(OutboxMessage).one()
        call.created_at = database_now(session) - timedelta(minutes=5)
    finding = found(settings)["scheduler"]
    assert (finding.status, "scheduler runs" in finding.next_step) == ("fail", True)


@pytest.mark.usefixtures("quick")
def test_clocks_that_disagree_are_a_warning(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        doctor, "database_now", lambda session: database_now(session) + timedelta(seconds=90)
    )
    assert found(settings)["clock"].status == "warn"


@pytest.mark.usefixtures("quick")
def test_a_folder_without_a_stack_yet_is_no_failure(settings: Settings) -> None:
    finding = found(settings, database_url=None)["database"]

    assert finding.status == "warn"
    assert "cstar up" in finding.next_step


@pytest.mark.usefixtures("quick")
def test_a_disk_that_is_nearly_full_is_noticed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "LITTLE_FREE", 1 << 62)
    assert found(settings)["disk"].status == "warn"
    monkeypatch.setattr(doctor, "LEAST_FREE", 1 << 61)
    assert found(settings)["disk"].status == "fail"


@pytest.mark.usefixtures("quick")
def test_the_doctor_leaves_no_bytes_behind(settings: Settings, tmp_path: Path) -> None:
    assert found(settings)["blobs"].status == "ok"
    assert not [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]


@pytest.fixture
def broker_url(tmp_path: Path) -> Iterator[str]:
    url, child = embedded_broker(Settings(data_dir=tmp_path, broker_url=None), tmp_path)
    assert child is not None
    child.start()
    with Celery(broker=url, set_as_current=False).connection() as connection:
        connection.ensure_connection(interval_start=0.02, interval_step=0, timeout=PATIENCE_S)
    yield url
    child.stop(grace_s=PATIENCE_S)
    shutil.rmtree(child.command[child.command.index("--dir") + 1])


def test_the_command_checks_everything_and_its_status_tells(
    sqlite_database: Database, tmp_path: Path, broker_url: str
) -> None:
    environment = {
        **os.environ,
        "CSTAR_DATA_DIR": str(tmp_path),
        "CSTAR_DATABASE_URL": str(sqlite_database.engine.url),
        "CSTAR_BROKER_URL": broker_url,
        "CSTAR_RATE_LIMIT_URL": broker_url.replace("redis+socket://", "unix://"),
        "CSTAR_SECRET_KEY": GOOD_SECRET,
    }
    command = [sys.executable, "-m", "stack", "doctor", "--json"]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    findings = [json.loads(text) for text in done.stdout.splitlines()]
    statuses = {one["check"]: one["status"] for one in findings}

    assert done.returncode == 0, done.stdout
    assert list(statuses) == ["python", "torch", "database", "clock", "workers", "scheduler",
                              "broker", "blobs", "sandbox", "disk", "secret",
                              "limits"]  # fmt: skip
    assert (statuses["broker"], statuses["limits"]) == ("ok", "ok")
    (sandbox,) = [one for one in findings if one["check"] == "sandbox"]
    assert sandbox["detail"].startswith(("bubblewrap, open to a runner: nothing", "rlimits, open"))
