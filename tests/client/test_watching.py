"""What is shown of a job that is watched."""

from __future__ import annotations

import io
import threading

import pytest
from rich.console import Console

from cstar_client import Client
from cstar_client.cli import watching
from cstar_client.documents import Job
from store import records
from store.leases import Lease
from store.records import MetricPoint
from tests.api.world import World
from tests.support import rows

CLEAN, ROBUST = "held_out_clean_accuracy", "held_out_robust_accuracy"


@pytest.fixture
def lease(client: Client, world: World) -> Lease:
    """A job in its ADMM phase, after eleven epochs that were told of at one moment."""
    lease = rows.claim(world.database, client.jobs.create(world.job_body())["id"])
    with world.database.writing() as session:
        records.record_progress(session, lease, phase="checking", progress=0.1, eta_s=None)
        checked = [
            MetricPoint("checking", name, 0, value) for name, value in ((CLEAN, 0.9), (ROBUST, 0.5))
        ]
        records.record_metrics(session, lease, checked)
    with world.database.writing() as session:
        records.record_progress(session, lease, phase="admm", progress=0.5, eta_s=75.0)
    with world.database.writing() as session:
        epochs = [MetricPoint("admm", "admm_gap", step, 0.4) for step in range(1, 11)]
        last = MetricPoint("admm", "admm_gap", 11, 0.0312)
        records.record_metrics(session, lease, [*epochs, last])
    return lease


def watched(client: Client, world: World, lease: Lease, *, terminal: bool) -> str:
    """Return what a console shows of a job that ends after it was first seen."""
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=100, height=40, highlight=False)
    update = watching._View.update

    def end_once_seen(view: watching._View, job: Job) -> None:
        update(view, job)
        if job["status"] == "running":
            threading.Thread(target=world.finish, args=(lease,)).start()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watching._View, "update", end_once_seen)
        ended = watching.watch(client, lease.job_id, console)
    assert ended["status"] == "succeeded"
    return text.getvalue()


def test_without_a_terminal_there_is_a_line_for_each_thing_in_its_order(
    client: Client, world: World, lease: Lease
) -> None:
    lines = watched(client, world, lease, terminal=False).splitlines()

    epochs = [f"    epoch {step}: gap 0.400" for step in range(1, 11)]
    assert lines == ["  checking", "  admm", *epochs, "    epoch 11: gap 0.031"]


def test_in_a_terminal_a_panel_shows_where_it_is(
    client: Client, world: World, lease: Lease
) -> None:
    shown = watched(client, world, lease, terminal=True)

    for figure in ("admm", "50%", "0:01:15 to go", "0.0312, goal 0.05", "90.0%", "Ctrl-C"):
        assert figure in shown
    assert shown.count("epoch 11: gap") == 1


def test_a_queued_job_tells_what_it_waits_for(client: Client, world: World) -> None:
    client.jobs.create(world.job_body())
    job = client.jobs.create(world.job_body())
    console = Console(file=io.StringIO(), width=100, record=True)
    console.print(watching.panel(job, 0, {}))

    shown = console.export_text()
    assert "jobs before it  1" in shown
    assert "No worker of queue" in shown
