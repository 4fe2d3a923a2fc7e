"""Frontiers of a model and of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, cast, get_args

from fastapi import Query
from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from api.errors import Fault, InvalidRequest
from api.pareto.points import compare, compressed_point, dense_points
from api.pareto.schemas import Axis, ParetoDocument
from api.tenancy import owned
from store.states import JobKind, JobState
from store.tables import Job, Model, ModelLineage, Sweep

MOST = 500
DEFAULT_AXES = "parameters,clean_accuracy,robust_accuracy"
AxesQuery = Annotated[
    str,
    Query(
        max_length=255,
        description=f"What points are compared on, any of {','.join(get_args(Axis))}",
    ),
]


def axes_of(text: str) -> list[Axis]:
    """Return the axes that a query names; raises InvalidRequest."""
    names = list(dict.fromkeys(text.split(",")))
    known = get_args(Axis)
    unknown = [name for name in names if name not in known]
    if unknown:
        detail = f"There is no axis {unknown[0]!r}; there are {', '.join(known)}."
        raise InvalidRequest(detail, faults=[Fault(detail, parameter="axes")])
    return cast(list[Axis], names)


def of_model(session: Session, model: Model, axes: Sequence[Axis]) -> ParetoDocument:
    """Return the frontier of all compressions of a model."""
    return _pareto(session, model.tenant_id, Job.model_id == model.id, axes, model_id=model.id)


def of_sweep(session: Session, sweep: Sweep, axes: Sequence[Axis]) -> ParetoDocument:
    """Return the frontier of a sweep's jobs."""
    return _pareto(
        session,
        sweep.tenant_id,
        Job.sweep_id == sweep.id,
        axes,
        model_id=sweep.model_id,
        sweep_id=sweep.id,
    )


def _pareto(
    session: Session,
    tenant_id: str,
    among: ColumnElement[bool],
    axes: Sequence[Axis],
    *,
    model_id: str,
    sweep_id: str | None = None,
) -> ParetoDocument:
    succeeded = (Job.kind == JobKind.COMPRESS, Job.state == JobState.SUCCEEDED)
    statement = owned(Job, tenant_id).where(among, *succeeded)
    found = session.scalars(statement.order_by(Job.id.desc()).limit(MOST + 1)).all()
    jobs = found[:MOST]
    registered = _registered(session, jobs)
    points = [compressed_point(job, model_id=registered.get(job.id)) for job in jobs]
    points += dense_points(jobs)
    compare(points, axes)
    return ParetoDocument(
        model_id=model_id,
        sweep_id=sweep_id,
        axes=list(axes),
        data=points,
        truncated=len(found) > MOST,
    )


def _registered(session: Session, jobs: Sequence[Job]) -> dict[str, str]:
    """Return the newest model that was registered of each job."""
    ids = [job.id for job in jobs]
    rows = select(ModelLineage).where(ModelLineage.job_id.in_(ids)).order_by(ModelLineage.model_id)
    return {row.job_id: row.model_id for row in session.scalars(rows)}
