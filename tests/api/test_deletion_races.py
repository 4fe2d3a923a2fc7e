"""A deletion and something that is being made of what it deletes: of both one fails, cleanly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
from sqlalchemy.orm import Session

from api import deletion
from api.errors import DomainError, InUse, NotFound
from api.files.service import named_in_body
from api.jobs import actions
from api.jobs import service as jobs
from api.models import aliases, lineage
from api.plans import service as plans
from api.quotas import Quotas
from api.webhooks import service
from api.webhooks.schemas import WebhookEndpointChanges
from store.blobs import BlobStore
from store.contracts import JobRequest, PlanRequest, RegistrationRequest
from store.database import Database
from store.settings import Settings
from store.states import JobState
from tests.api.world import World
from tests.support import rows
from tests.support.threads import PATIENCE_S, at_once, await_lock_wait, in_background
from tests.support.webhooks import add_delivery, add_endpoint

ROUNDS = 4


@dataclass(frozen=True)
class Race:
    """Something that refers to a row, and the deletion of that row."""

    make: Callable[[Session], object]
    delete: Callable[[Session], object]


def job_on_model(world: World) -> Race:
    request = JobRequest.model_validate(world.job_body())
    own = {"tenant_id": world.tenant_id}
    return Race(
        lambda session: jobs.create(session, request, queue="cpu.default", **own),
        lambda session: deletion.delete_model(session, request.model_id, **own),
    )


def job_on_dataset(world: World) -> Race:
    request = JobRequest.model_validate(world.job_body())
    own = {"tenant_id": world.tenant_id}
    return Race(
        lambda session: jobs.create(session, request, queue="cpu.default", **own),
        lambda session: deletion.delete_dataset(session, request.dataset_id, **own),
    )


def plan_on_model(world: World) -> Race:
    request = PlanRequest.model_validate(world.plan_body())
    own = {"tenant_id": world.tenant_id}
    return Race(
        lambda session: plans.create(session, request, quotas=Quotas(Settings()), **own),
        lambda session: deletion.delete_model(session, request.model_id, **own),
    )


def alias_on_model(world: World) -> Race:
    model_id, own = world.model(), {"tenant_id": world.tenant_id}
    return Race(
        lambda session: aliases.point(session, model_id, "production", **own),
        lambda session: deletion.delete_model(session, model_id, **own),
    )


def registration_of_job(world: World) -> Race:
    request = JobRequest.model_validate(world.job_body())
    own = {"tenant_id": world.tenant_id}
    with world.database.writing() as session:
        job_id = jobs.create(session, request, queue="cpu.default", **own).id
    world.succeed(job_id)
    return Race(
        lambda session: lineage.register(session, job_id, RegistrationRequest(), **own),
        lambda session: deletion.delete_job(session, job_id, **own),
    )


def retry_on_model(world: World) -> Race:
    request = JobRequest.model_validate(world.job_body())
    own = {"tenant_id": world.tenant_id}
    with world.database.writing() as session:
        job_id = jobs.create(session, request, queue="cpu.default", **own).id
    world.bring(job_id, JobState.CANCELLED)
    return Race(
        lambda session: actions.retry(session, job_id, **own),
        lambda session: deletion.delete_model(session, request.model_id, **own),
    )


@pytest.fixture
def world(database: Database, blob_store: BlobStore) -> World:
    return World(database, blob_store, rows.add_tenant(database))


RACES = [
    job_on_model,
    job_on_dataset,
    plan_on_model,
    alias_on_model,
    registration_of_job,
    retry_on_model,
]


def attempt(database: Database, act: Callable[[Session], object]) -> DomainError | None:
    """Carry something out in a transaction of its own; returns how it was refused."""
    try:
        with database.writing() as session:
            act(session)
    except DomainError as error:
        return error
    return None


def second_while_first_is_open(
    database: Database,
    first: Callable[[Session], object],
    second: Callable[[Session], object],
) -> DomainError | None:
    """Let `second` begin while `first` has written and not committed; returns how it ended.

    PostgreSQL lets it wait at the row, SQLite at its beginning.
    """
    with database.writing() as session:
        first(session)
        session.flush()
        with in_background(partial(attempt, database, second)) as future:
            if database.engine.dialect.name == "postgresql":
                await_lock_wait(database, future)
            session.commit()
            return future.result(PATIENCE_S)


@pytest.mark.parametrize("race", RACES)
def test_what_is_being_referred_to_is_not_deleted(
    world: World, race: Callable[[World], Race]
) -> None:
    run = race(world)
    outcome = second_while_first_is_open(world.database, run.make, run.delete)
    assert isinstance(outcome, InUse)


@pytest.mark.parametrize("race", RACES)
def test_what_is_being_deleted_is_not_referred_to(
    world: World, race: Callable[[World], Race]
) -> None:
    run = race(world)
    outcome = second_while_first_is_open(world.database, run.delete, run.make)
    assert isinstance(outcome, NotFound)


def test_two_registrations_of_a_job_at_once_make_one_version(world: World) -> None:
    for _ in range(ROUNDS):
        request = JobRequest.model_validate(world.job_body())
        own = {"tenant_id": world.tenant_id}
        with world.database.writing() as session:
            job_id = jobs.create(session, request, queue="cpu.default", **own).id
        world.succeed(job_id)

        def register(job_id: str = job_id) -> tuple[str, bool]:
            with world.database.writing() as session:
                found = lineage.register(
                    session, job_id, RegistrationRequest(), tenant_id=world.tenant_id
                )
                return found[0].id, found[1]

        first, second = at_once([register, register])
        assert first[0] == second[0]
        assert {first[1], second[1]} == {True, False}


def test_a_file_that_is_being_named_is_not_deleted(world: World) -> None:
    world.model()
    with world.database.writing() as session:
        file_id = rows.add_file(session, world.tenant_id, b"another checkpoint")
    own = {"tenant_id": world.tenant_id}

    def name(session: Session) -> None:
        named_in_body(session, file_id, purpose="checkpoint", **own)

    def delete(session: Session) -> None:
        deletion.delete_file(session, file_id, **own)

    assert isinstance(second_while_first_is_open(world.database, delete, name), NotFound)


CHANGES = {
    "test": service.test,
    "rotate": partial(service.rotate, overlap_s=0),
    "change": lambda session, endpoint_id, **own: service.change(
        session,
        endpoint_id,
        WebhookEndpointChanges(description="x"),
        allow_private=False,
        **own,
    ),
    "remove": service.remove,
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_webhook_endpoint_that_is_being_removed_is_not_found(world: World, name: str) -> None:
    endpoint_id = add_endpoint(world.database, world.tenant_id)
    own = {"tenant_id": world.tenant_id}
    outcome = second_while_first_is_open(
        world.database,
        lambda session: service.remove(session, endpoint_id, **own),
        lambda session: CHANGES[name](session, endpoint_id, **own),
    )
    assert isinstance(outcome, NotFound)


def test_a_delivery_whose_endpoint_is_being_removed_is_not_found(world: World) -> None:
    endpoint_id = add_endpoint(world.database, world.tenant_id)
    delivery_id = add_delivery(world.database, endpoint_id)
    own = {"tenant_id": world.tenant_id}
    outcome = second_while_first_is_open(
        world.database,
        lambda session: service.remove(session, endpoint_id, **own),
        lambda session: service.redeliver(session, delivery_id, **own),
    )
    assert isinstance(outcome, NotFound)


def test_an_action_on_a_job_that_is_deleted_meanwhile_finds_none(
    postgresql_database: Database, blob_store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(postgresql_database, blob_store, rows.add_tenant(postgresql_database))
    request, own = JobRequest.model_validate(world.job_body()), {"tenant_id": world.tenant_id}
    with world.database.writing() as session:
        job_id = jobs.create(session, request, queue="cpu.default", **own).id
    world.bring(job_id, JobState.CANCELLED)

    def moves_nothing(*_: object, **__: object) -> None:
        with world.database.writing() as session:
            deletion.delete_job(session, job_id, **own)

    monkeypatch.setattr(actions, "transition", moves_nothing)
    monkeypatch.setattr(actions, "MOVES", {"resume": {JobState.PAUSED: JobState.QUEUED}})
    with world.database.writing() as session, pytest.raises(NotFound):
        actions.act(session, job_id, "resume", **own)
