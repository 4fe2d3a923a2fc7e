"""Asking for dry runs, and finding those that were made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from api.jobs.admission import check_compressible, check_feasible, check_model_ready
from api.models.references import resolve
from api.pagination import Cursor, Slice, keyset
from api.plans.schemas import PlanDocument, PlanSummary, plan_document, plan_summary
from api.quotas import Quotas
from api.system.endpoints import VERSION
from api.tenancy import find, owned
from store.contracts import PlanRequest, PlanTargets, document
from store.database import database_now
from store.identifiers import new_id
from store.states import FINAL, JobKind, JobState
from store.submit import IO_QUEUE, submit
from store.tables import Job, Model, Plan

MAX_RUNTIME_S = 300  # the queue is for short work; images of an absurd size take long


def create(session: Session, request: PlanRequest, *, tenant_id: str, quotas: Quotas) -> Plan:
    """Return a plan for the request: one that was made or is being made, else a new one.

    Two equal requests at the same moment may make two. Raises QuotaExceeded (what
    is there already is given nevertheless), or one of the errors of `admission`.
    """
    place = {"tenant_id": tenant_id, "pointer": "/model_id"}
    model = resolve(session, request.model_id, lock="share", **place)
    check_model_ready(model)
    check_compressible(model)
    check_feasible(request.targets.compression, model)
    decisive = PlanTargets(compression=request.targets.compression)
    request = request.model_copy(update={"targets": decisive, "model_id": model.id})
    key = fingerprint(model, request)
    known = _known(session, key, model)
    if known is not None and known.model_id == model.id:
        return known
    if known is None:
        quotas.claim(session, tenant_id, jobs=1)
    job_id = known.job_id if known else _submit(session, request, tenant_id=tenant_id).id
    plan = Plan(
        id=new_id("plan"),
        tenant_id=tenant_id,
        model_id=model.id,
        job_id=job_id,
        key=key,
        created_at=database_now(session),
    )
    session.add(plan)
    session.flush()
    return plan


def fingerprint(model: Model, request: PlanRequest) -> str:
    """Return the SHA-256 of all that decides a plan: weights, network, images, limits, version."""
    decisive = {
        "weights": model.weights_sha256,
        "architecture": model.architecture,
        "shape": model.input["shape"],
        "request": document(request) | {"model_id": None},
        "version": VERSION,
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def get(session: Session, plan_id: str, *, tenant_id: str) -> PlanDocument:
    """Return the document of a plan; raises NotFound."""
    plan = find(session, Plan, plan_id, tenant_id=tenant_id)
    return plan_document(plan, session.get_one(Job, plan.job_id))


def page(
    session: Session, cursor: Cursor, *, tenant_id: str, model_id: str | None
) -> Slice[PlanSummary]:
    """Return a page of the tenant's plans."""
    statement = owned(Plan, tenant_id)
    if model_id is not None:
        statement = statement.where(Plan.model_id == model_id)
    found = keyset(session, statement, Plan.id, cursor)
    jobs = _jobs(session, found.rows)
    rows = [plan_summary(plan, jobs[plan.job_id]) for plan in found.rows]
    return Slice(rows, has_more=found.has_more)


def _known(session: Session, key: str, model: Model) -> Plan | None:
    """Return a plan of this key that has not failed, one of this model before any other."""
    failed = FINAL - {JobState.SUCCEEDED}
    statement = (
        owned(Plan, model.tenant_id)
        .join(Job, Job.id == Plan.job_id)
        .where(Plan.key == key, Job.state.not_in(failed))
        .order_by(Plan.model_id != model.id, Plan.id.desc())
        .limit(1)
        .with_for_update(read=True, of=Job)  # nobody deletes what this plan is to share
    )
    return session.scalar(statement)


def _submit(session: Session, request: PlanRequest, *, tenant_id: str) -> Job:
    return submit(
        session,
        tenant_id=tenant_id,
        kind=JobKind.PLAN,
        queue=IO_QUEUE,
        request=document(request),
        model_id=request.model_id,
        max_runtime_s=MAX_RUNTIME_S,
    )


def _jobs(session: Session, plans: Sequence[Plan]) -> dict[str, Job]:
    """Return the jobs of plans by id, without their long results."""
    statement = select(Job).where(Job.id.in_([plan.job_id for plan in plans]))
    return {job.id: job for job in session.scalars(statement.options(defer(Job.result)))}
