"""Making sweeps, finding them, and acting on all jobs of one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from api.deletion import check_removable
from api.errors import Fault, InvalidTransition, TargetInfeasible
from api.jobs import service as jobs
from api.jobs.actions import MOVES
from api.models.references import resolve
from api.pagination import Cursor, Slice, keyset
from api.sweeps.schemas import SweepDocument, sweep_document
from api.tenancy import find, owned
from store.contracts import SweepRequest, document
from store.database import database_now
from store.identifiers import new_id
from store.lifecycle import transition
from store.removal import lock_job, remove_job
from store.tables import Dataset, Job, Sweep

_RATIO = "/targets/compression/ratio"


def create(session: Session, request: SweepRequest, *, tenant_id: str, queue: str) -> Sweep:
    """Queue every job of a sweep, or none; raises one of the errors of `jobs.admission`.

    An alias is resolved once, so that all jobs are of one model. Targets out of reach are refused
    together, each ratio with its place in the list.
    """
    place = {"tenant_id": tenant_id, "pointer": "/model_id"}
    model = resolve(session, request.model_id, lock="share", **place)
    place = {"tenant_id": tenant_id, "pointer": "/dataset_id"}
    dataset = find(session, Dataset, request.dataset_id, lock="share", **place)
    request = request.model_copy(update={"model_id": model.id})
    sweep = Sweep(
        id=new_id("swp"),
        tenant_id=tenant_id,
        model_id=model.id,
        dataset_id=dataset.id,
        request=document(request),
        created_at=database_now(session),
    )
    session.add(sweep)
    session.flush()
    refusals = []
    for each in request.jobs():
        try:
            jobs.create(session, each, tenant_id=tenant_id, queue=queue, sweep_id=sweep.id)
        except TargetInfeasible as error:
            refusals.append((each.compression.ratio, error))
    if refusals:
        raise _infeasible(request.ratios, refusals)
    return sweep


def get(session: Session, sweep_id: str, *, tenant_id: str) -> Sweep:
    """Return a sweep; raises NotFound."""
    return find(session, Sweep, sweep_id, tenant_id=tenant_id)


def page(session: Session, cursor: Cursor, *, tenant_id: str) -> Slice[Sweep]:
    """Return a page of the tenant's sweeps."""
    return keyset(session, owned(Sweep, tenant_id), Sweep.id, cursor)


def documents(session: Session, sweeps: Sequence[Sweep]) -> list[SweepDocument]:
    """Return the documents of sweeps with all their jobs, the first to be asked for first."""
    statement = select(Job).where(Job.sweep_id.in_([sweep.id for sweep in sweeps]))
    of: dict[str | None, list[Job]] = {sweep.id: [] for sweep in sweeps}
    for job in session.scalars(statement.options(defer(Job.result)).order_by(Job.id)):
        of[job.sweep_id].append(job)
    return [sweep_document(sweep, of[sweep.id]) for sweep in sweeps]


def document_of(session: Session, sweep: Sweep) -> SweepDocument:
    """Return the document of one sweep."""
    return documents(session, [sweep])[0]


def cancel(session: Session, sweep_id: str, *, tenant_id: str) -> Sweep:
    """Cancel every job of a sweep that has not ended; raises InvalidTransition if all have."""
    sweep = get(session, sweep_id, tenant_id=tenant_id)
    status = document_of(session, sweep).status
    if status != "running":
        raise InvalidTransition(
            f"A sweep that is {status} takes no cancel.", members={"state": status, "possible": []}
        )
    for job_id in _job_ids(session, sweep):
        for origin, target in MOVES["cancel"].items():
            if transition(session, job_id, target, origin=[origin]) is not None:
                break
    return sweep


def remove(session: Session, sweep_id: str, *, tenant_id: str) -> None:
    """Delete a sweep with all its jobs; raises NotFound, InvalidTransition or InUse."""
    sweep = find(session, Sweep, sweep_id, tenant_id=tenant_id, lock="update")
    for job_id in _job_ids(session, sweep):
        job = lock_job(session, job_id)
        if job is not None:
            check_removable(session, job)
            remove_job(session, job)


def _job_ids(session: Session, sweep: Sweep) -> Sequence[str]:
    return session.scalars(select(Job.id).where(Job.sweep_id == sweep.id).order_by(Job.id)).all()


def _infeasible(
    ratios: Sequence[float], refusals: Iterable[tuple[float | None, TargetInfeasible]]
) -> TargetInfeasible:
    """Return one error for all that is out of reach."""
    faults: dict[tuple[str | None, str], Fault] = {}
    best: dict[str, float] = {}
    for ratio, error in refusals:
        best |= error.members["best"]
        for fault in error.faults:
            pointer = fault.pointer
            if pointer == _RATIO and ratio in ratios:
                pointer = f"/ratios/{ratios.index(ratio)}"
            faults[pointer, fault.detail] = Fault(fault.detail, pointer=pointer)
    words = "; ".join(f"{fault.pointer}: {fault.detail}" for fault in faults.values())
    detail = f"Nothing was queued, because not all of it can be met. {words}."
    return TargetInfeasible(detail, faults=list(faults.values()), members={"best": best})
