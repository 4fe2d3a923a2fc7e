"""The Airflow tasks of docs/pipelines.md, called as Airflow calls them, do what the page says.

Airflow is not installed: its decorators are stood in for, the client and the service are not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from cstar_client import Client
from store.states import JobState
from tests.api.world import World
from tests.client.conftest import Access
from tests.contract.test_pipelines import blocks
from tests.support import rows


class AirflowFailException(Exception):
    """Airflow's own: the task is not tried again."""


@dataclass(frozen=True)
class PokeReturnValue:
    """Airflow's own: what a sensor says."""

    is_done: bool
    xcom_value: Any = None


def task(*given: Any, **options: Any) -> Any:
    return given[0] if given else lambda function: function


def never_built(**options: Any) -> Callable[[Any], Any]:
    return lambda _function: lambda: None


@pytest.fixture
def tasks(access: Access, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The tasks of the page, with address and key in the environment."""
    task.sensor = task  # type: ignore[attr-defined]
    sdk, exceptions = ModuleType("airflow.sdk"), ModuleType("airflow.sdk.exceptions")
    vars(sdk).update(task=task, dag=never_built, PokeReturnValue=PokeReturnValue)
    vars(exceptions).update(AirflowFailException=AirflowFailException)
    for module in (ModuleType("airflow"), sdk, exceptions):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv("CSTAR_URL", access.url)
    monkeypatch.setenv("CSTAR_API_KEY", access.api_key)
    (page,) = [block for block in blocks("python") if "airflow" in block]
    names: dict[str, Any] = {}
    exec(compile(page, "docs/pipelines.md", "exec"), names)
    return SimpleNamespace(**names)


def ended(world: World, job_id: str, outcome: str) -> None:
    lease = world.bring(job_id, JobState.RUNNING)
    assert lease is not None
    targets = [rows.EVALUATION_RESULT["targets"][0] | {"outcome": outcome}]
    world.finish(lease, result=rows.EVALUATION_RESULT | {"targets": targets})


def test_a_submission_that_is_tried_again_makes_one_job(
    tasks: SimpleNamespace, world: World, client: Client
) -> None:
    subject = {"model": world.model(), "dataset": world.dataset()}
    job_id = tasks.submit(subject, run_id="manual__1")

    assert tasks.submit(subject, run_id="manual__1") == job_id
    assert [job["id"] for job in client.jobs.list()] == [job_id]
    assert tasks.submit(subject, run_id="manual__2") != job_id


def test_the_sensor_hands_on_a_job_that_has_ended(tasks: SimpleNamespace, world: World) -> None:
    subject = {"model": world.model(), "dataset": world.dataset()}
    job_id = tasks.submit(subject, run_id="manual__1")
    ended(world, job_id, "met")

    assert tasks.ended(job_id) == PokeReturnValue(True, job_id)
    assert tasks.gate(job_id) == job_id


def test_the_gate_fails_for_a_target_missed_or_a_job_without_a_result(
    tasks: SimpleNamespace, world: World
) -> None:
    subject = {"model": world.model(), "dataset": world.dataset()}
    missed = tasks.submit(subject, run_id="manual__1")
    ended(world, missed, "missed")
    with pytest.raises(AirflowFailException, match="misses robust_accuracy"):
        tasks.gate(missed)

    failed = tasks.submit(subject, run_id="manual__2")
    world.bring(failed, JobState.FAILED)
    with pytest.raises(AirflowFailException, match="failed"):
        tasks.gate(failed)
