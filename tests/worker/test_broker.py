"""Celery's settings by broker: each line is there because of a trap that was measured."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from store.settings import Settings
from worker.broker import broker_url, celery_configuration

REDIS = ["redis://localhost:6379/0", "rediss://localhost", "redis+socket:///run/broker.sock"]
RABBITMQ = ["amqp://localhost", "amqps://localhost", "pyamqp://localhost"]
EVERY = [*REDIS, *RABBITMQ, "filesystem://"]


def configured(url: str, folder: Path) -> Any:
    """Return the settings of an app as Celery itself reads them."""
    app = Celery("configured", set_as_current=False)
    app.conf.update(celery_configuration(url, Settings(data_dir=folder)))
    return app.conf


@pytest.mark.parametrize("url", EVERY)
def test_the_broker_is_the_one_that_is_named(url: str, tmp_path: Path) -> None:
    assert configured(url, tmp_path).broker_url == url


@pytest.mark.parametrize("url", EVERY)
def test_messages_are_json_alone(url: str, tmp_path: Path) -> None:
    found = configured(url, tmp_path)

    assert found.task_serializer == "json"
    assert found.accept_content == ["json"]


@pytest.mark.parametrize("url", EVERY)
def test_no_result_is_kept_outside_the_database(url: str, tmp_path: Path) -> None:
    found = configured(url, tmp_path)

    assert found.result_backend is None
    assert found.task_ignore_result is True


@pytest.mark.parametrize("url", EVERY)
def test_deadlines_belong_to_the_supervisor(url: str, tmp_path: Path) -> None:
    found = configured(url, tmp_path)

    assert found.task_time_limit is None
    assert found.task_soft_time_limit is None


@pytest.mark.parametrize("url", EVERY)
def test_a_worker_fetches_one_message_at_a_time(url: str, tmp_path: Path) -> None:
    assert configured(url, tmp_path).worker_prefetch_multiplier == 1


@pytest.mark.parametrize("url", EVERY)
def test_a_broker_that_reconnects_does_not_kill_the_running_job(url: str, tmp_path: Path) -> None:
    """Killed so, it was delivered to nobody else."""
    found = configured(url, tmp_path)

    assert found.worker_cancel_long_running_tasks_on_connection_loss is False
    assert found.task_reject_on_worker_lost is False


@pytest.mark.parametrize("url", EVERY)
def test_a_worker_waits_for_its_broker_for_ever(url: str, tmp_path: Path) -> None:
    found = configured(url, tmp_path)

    assert found.broker_connection_retry_on_startup is True
    assert found.broker_connection_max_retries is None


@pytest.mark.parametrize("url", EVERY)
def test_logging_is_left_to_the_worker(url: str, tmp_path: Path) -> None:
    assert configured(url, tmp_path).worker_hijack_root_logger is False


@pytest.mark.parametrize("url", [*REDIS, "filesystem://"])
def test_redis_and_files_acknowledge_early(url: str, tmp_path: Path) -> None:
    """With late acknowledgement Redis' visibility timeout starts a long task several times."""
    assert configured(url, tmp_path).task_acks_late is False


@pytest.mark.parametrize("url", REDIS)
def test_redis_keeps_no_message_for_a_busy_worker(url: str, tmp_path: Path) -> None:
    assert configured(url, tmp_path).worker_disable_prefetch is True


@pytest.mark.parametrize("url", REDIS)
def test_a_redis_that_does_not_answer_is_given_up_soon(url: str, tmp_path: Path) -> None:
    assert configured(url, tmp_path).broker_transport_options["socket_connect_timeout"] == 2


@pytest.mark.parametrize("url", RABBITMQ)
def test_rabbitmq_acknowledges_late(url: str, tmp_path: Path) -> None:
    assert configured(url, tmp_path).task_acks_late is True


def test_rabbitmq_is_shipped_with_patience_for_the_longest_job() -> None:
    """It closes the channel of a consumer that is late, and the worker behind it exits."""
    lines = Path("docker/rabbitmq.conf").read_text().splitlines()
    (milliseconds,) = [line.split("=")[1] for line in lines if line.startswith("consumer_timeout")]

    assert int(milliseconds) >= 7 * 24 * 3600 * 1000


@pytest.mark.parametrize("url", REDIS)
def test_a_redis_that_a_network_has_lost_is_found_out(url: str, tmp_path: Path) -> None:
    """A worker that waits for a message sends nothing, so that nothing fails."""
    options = configured(url, tmp_path).broker_transport_options["socket_keepalive_options"]

    idle, interval, count = options.values()
    assert idle + interval * count <= 60


def test_files_are_looked_at_often_and_lie_in_the_data_folder(tmp_path: Path) -> None:
    options = configured("filesystem://", tmp_path).broker_transport_options

    assert 0 < options["polling_interval"] <= 0.5
    assert options["data_folder_in"] == options["data_folder_out"]
    for name in ("data_folder_in", "control_folder"):
        assert Path(options[name]).is_dir()
        assert Path(options[name]).is_relative_to(tmp_path.resolve())


@pytest.mark.parametrize("url", [*REDIS, *RABBITMQ])
def test_only_files_need_folders(url: str, tmp_path: Path) -> None:
    configured(url, tmp_path / "data")

    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("url", ["sqs://queue", "sqla+sqlite:///broker.db", "localhost:6379", ""])
def test_an_unknown_broker_is_refused_with_the_known_ones(url: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as refusal:
        celery_configuration(url, Settings(data_dir=tmp_path))

    assert "is not supported" in str(refusal.value)
    for name in ("redis", "amqp", "filesystem"):
        assert name in str(refusal.value)


def test_a_missing_url_is_refused_with_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CSTAR_BROKER_URL", raising=False)

    with pytest.raises(SystemExit, match=r"CSTAR_BROKER_URL is not set; `make up` starts"):
        broker_url(Settings())


def celery(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Celery's command line with our app."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("CSTAR_")}
    return subprocess.run(
        [sys.executable, "-m", "celery", "-A", "worker.app", *arguments],
        check=False,
        capture_output=True,
        text=True,
        env={**ours, "CSTAR_DATA_DIR": str(tmp_path), **environment},
    )


def test_the_app_that_a_worker_runs_has_these_settings(tmp_path: Path) -> None:
    ended = celery(tmp_path, "report", CSTAR_BROKER_URL="redis://localhost:6379/5")

    assert ended.returncode == 0, ended.stderr
    for name in (
        "worker_disable_prefetch: True",
        "task_acks_late: False",
        "accept_content: ['json']",
    ):
        assert name in ended.stdout


def test_a_worker_without_the_sandbox_it_must_have_does_not_start(tmp_path: Path) -> None:
    ended = celery(
        tmp_path,
        "worker",
        CSTAR_BROKER_URL="redis://localhost:1",
        CSTAR_SANDBOX="required",
        PATH=str(tmp_path),
    )

    assert ended.returncode == 1
    assert "bubblewrap (bwrap) is not installed" in ended.stderr


def test_a_worker_that_is_to_trace_without_opentelemetry_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "opentelemetry").mkdir()  # found first, and empty
    (tmp_path / "opentelemetry" / "__init__.py").touch()
    ended = celery(
        tmp_path,
        "worker",
        CSTAR_BROKER_URL="redis://localhost:1",
        CSTAR_TRACES="otlp",
        PYTHONPATH=str(tmp_path),
    )

    assert ended.returncode == 1
    assert "pip install 'cstar-service[otel]'" in ended.stderr
