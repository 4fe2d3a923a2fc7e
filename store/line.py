"""The order in which the jobs of a queue are served, and where a job stands in it.

Higher priority first. Within a priority the tenants take turns, the one whose last turn in this
queue is longest ago first (never counts as longest), each with its oldest job; of tenants that
were never served, the one with the oldest job. A tenant with a thousand jobs thus delays another
by one job for each of the other's own. Nothing here looks at a clock, except that a job may wait
until its `available_at`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import Session

from store.database import database_now
from store.states import JobState
from store.tables import Job, QueueTurn

LONGEST_WAIT_S = 600.0  # a job that seems to wait longer waits for a clock that was set back


def available(session: Session) -> ColumnElement[bool]:
    """Return the condition that a job does not have to wait (any more) before it is claimed."""
    now = database_now(session)
    horizon = now + timedelta(seconds=LONGEST_WAIT_S)
    when = Job.available_at
    return or_(when.is_(None), when <= now, when > horizon)


def first(session: Session, queue: str, *, limit: int = 1) -> Sequence[str]:
    """Return the next jobs of a queue, as its tenants' turns are now."""
    turn = and_(QueueTurn.queue == Job.queue, QueueTurn.tenant_id == Job.tenant_id)
    statement = (
        select(Job.id)
        .outerjoin(QueueTurn, turn)
        .where(Job.state == JobState.QUEUED, Job.queue == queue, available(session))
        .order_by(Job.priority.desc(), func.coalesce(QueueTurn.number, 0), Job.id)
        .limit(limit)
    )
    return session.scalars(statement).all()


def take_turn(session: Session, *, queue: str, tenant_id: str) -> None:
    """Put a tenant at the end of the turns of a queue."""
    insert = sqlite_insert if session.get_bind().dialect.name == "sqlite" else postgresql_insert
    last = select(func.coalesce(func.max(QueueTurn.number), 0)).where(QueueTurn.queue == queue)
    number = last.scalar_subquery() + 1
    session.execute(
        insert(QueueTurn)
        .values(queue=queue, tenant_id=tenant_id, number=number)
        .on_conflict_do_update(
            index_elements=[QueueTurn.queue, QueueTurn.tenant_id], set_={"number": number}
        )
    )


def positions(session: Session, job_ids: Sequence[str]) -> dict[str, int]:
    """Return how many jobs will be claimed before each of these that are queued.

    Exact as long as none is added, and none leaves in another way; a job that has to wait for its
    `available_at` counts as if it had not.
    """
    places = _places(session, job_ids)
    found: dict[str, int] = {}
    for queue in {place.queue for place in places}:
        levels = _levels(session, queue)
        for place in places:
            if place.queue == queue:
                found[place.job_id] = levels[place.priority].position(place)
    return found


@dataclass(frozen=True)
class _Place:
    """A queued job: `rank` of its tenant's jobs of this priority come before it."""

    job_id: str
    queue: str
    tenant_id: str
    priority: int
    rank: int


@dataclass(frozen=True)
class _Crowd:
    """The queued jobs of one tenant at one priority of a queue."""

    tenant_id: str
    priority: int
    count: int
    oldest: str


@dataclass(frozen=True)
class _Level:
    """The jobs of one priority, the crowds in the order of their tenants' turns."""

    ahead: int
    crowds: tuple[_Crowd, ...]

    def position(self, place: _Place) -> int:
        """Return how many jobs are served before `place`."""
        tenants = [crowd.tenant_id for crowd in self.crowds]
        own = tenants.index(place.tenant_id)
        others = (
            min(crowd.count, place.rank + (1 if turn < own else 0))
            for turn, crowd in enumerate(self.crowds)
            if turn != own
        )
        return self.ahead + place.rank + sum(others)


def _levels(session: Session, queue: str) -> dict[int, _Level]:
    """Serve a queue in thought, priority by priority, and follow the tenants' turns."""
    turns = select(QueueTurn.tenant_id, QueueTurn.number).where(QueueTurn.queue == queue)
    standing = {tenant: (0, number, 0) for tenant, number in session.execute(turns)}
    levels: dict[int, _Level] = {}
    ahead = 0
    for number, (priority, crowds) in enumerate(_by_priority(_crowds(session, queue)), start=1):
        order = sorted(crowds, key=lambda c: (standing.get(c.tenant_id, (0, 0, 0)), c.oldest))
        levels[priority] = _Level(ahead, tuple(order))
        ahead += sum(crowd.count for crowd in order)
        for turn, crowd in enumerate(order):  # when each was served last, relative to the others
            standing[crowd.tenant_id] = (number, crowd.count, turn)
    return levels


def _by_priority(crowds: Iterable[_Crowd]) -> Iterable[tuple[int, list[_Crowd]]]:
    ordered = sorted(crowds, key=lambda crowd: -crowd.priority)
    for priority, level in groupby(ordered, key=lambda crowd: crowd.priority):
        yield priority, list(level)


def _crowds(session: Session, queue: str) -> list[_Crowd]:
    statement = (
        select(Job.tenant_id, Job.priority, func.count(), func.min(Job.id))
        .where(Job.state == JobState.QUEUED, Job.queue == queue)
        .group_by(Job.tenant_id, Job.priority)
    )
    return [_Crowd(*row) for row in session.execute(statement)]


def _places(session: Session, job_ids: Sequence[str]) -> list[_Place]:
    if not job_ids:
        return []
    owners = select(Job.tenant_id).where(Job.id.in_(job_ids))
    own_line = (Job.queue, Job.tenant_id, Job.priority)
    rank = func.row_number().over(partition_by=own_line, order_by=Job.id) - 1
    queued = (
        select(Job.id, *own_line, rank.label("rank"))
        .where(Job.state == JobState.QUEUED, Job.tenant_id.in_(owners))
        .subquery()
    )
    return [_Place(*row) for row in session.execute(select(queued).where(queued.c.id.in_(job_ids)))]
