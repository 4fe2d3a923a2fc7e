"""What holds on every broker: a message wakes a worker, and nothing depends on its arrival."""

from __future__ import annotations

from stack.children import Child
from store.states import JobState
from tests.e2e.watching import PATIENCE_S, until
from tests.support import rows, small
from tests.support.site import Site, log_has
from tests.support.small_runner import PHASES, STEPS, STEPS_A_PHASE


def test_a_worker_that_starts_before_its_broker_waits_for_it(site: Site) -> None:
    if site.broker.has_process:
        waiting = site.start_worker()
        until(lambda: log_has(waiting, "Cannot connect to"), "a first try")
        site.broker.start()
    else:
        waiting = site.start_worker()
    job = site.finished(site.add_job(seed=1))

    assert job.attempt == 1
    assert job.result == {"chain": small.expected(1)}


def test_a_job_that_is_published_is_run_once(site: Site, worker: Child) -> None:
    job_ids = [site.add_job(seed=seed) for seed in range(3)]
    jobs = [site.finished(job_id) for job_id in job_ids]

    assert [job.attempt for job in jobs] == [1, 1, 1]
    for job_id in job_ids:
        assert small.steps_taken(site.stamps(job_id)) == STEPS
        assert rows.event_types(site.database, job_id).count("job.succeeded") == 1


def test_a_waiting_job_of_higher_priority_is_run_first(site: Site, worker: Child) -> None:
    running = site.add_job(step_s=60.0)
    site.await_step(running, 0)
    late, urgent = site.add_job(), site.add_job(priority=5)
    for job_id in (late, urgent):
        site.await_dispatch(job_id)
    site.cancel(running)
    first, second = site.finished(urgent), site.finished(late)

    assert first.started_at
    assert second.started_at
    assert first.started_at < second.started_at


def test_a_broker_that_dies_with_its_queue_costs_neither_the_running_job_nor_those_in_line(
    site: Site, worker: Child
) -> None:
    connected = worker.log.read_text().count("Connected to")
    running = site.add_job(step_s=60.0)
    site.await_step(running, 0)
    waiting = site.add_job(seed=2)
    site.await_dispatch(waiting)
    site.broker.kill()
    site.broker.start()
    if site.broker.has_process:
        until(lambda: log_has(worker, "Connected to", connected + 1), "the worker to be back")
    assert (site.job(running).state, site.job(running).attempt) == (JobState.RUNNING, 1)
    site.cancel(running)

    assert site.finished(waiting).result == {"chain": small.expected(2)}
    assert len({stamp.process for stamp in site.stamps(running)}) == 1


def test_a_worker_that_is_shut_down_gives_its_job_back_and_the_next_goes_on_from_there(
    site: Site, worker: Child
) -> None:
    job_id = site.add_job(seed=3, hold_at=STEPS_A_PHASE + 1)
    site.await_step(job_id, STEPS_A_PHASE + 1)
    site.terminate(worker, within_s=PATIENCE_S)
    left = site.job(job_id)
    assert (left.state, left.lost_attempts) == (JobState.QUEUED, 0)
    assert rows.read_attempt(site.database, job_id, 1).outcome == "released"
    site.start_worker()
    job = site.finished(job_id)

    assert (job.attempt, job.result) == (2, {"chain": small.expected(3)})
    assert small.steps_taken(site.stamps(job_id)) == STEPS
    told = [
        e.data["phase"] for e in rows.events(site.database, job_id) if e.type == "phase.finished"
    ]
    assert told[: len(PHASES)] == list(PHASES)


def test_the_job_of_a_worker_that_was_killed_is_run_again_after_its_lease(
    site: Site, worker: Child
) -> None:
    job_id = site.add_job(seed=4, hold_at=STEPS_A_PHASE + 5)
    site.await_step(job_id, STEPS_A_PHASE + 5)
    until(lambda: "phase.finished" in rows.event_types(site.database, job_id), "a phase to be kept")
    site.kill(worker)
    rows.expire(site.database, job_id)
    site.start_worker()
    job = site.finished(job_id)

    assert (job.attempt, job.lost_attempts) == (2, 1)
    assert job.result == {"chain": small.expected(4)}
    assert small.overlaps(site.stamps()) == []
    assert small.steps_taken(site.stamps(job_id)) < STEPS + STEPS_A_PHASE
