"""Registering what a compression left as the next version of a model."""

from __future__ import annotations

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.errors import Fault, InvalidRequest, InvalidTransition
from api.jobs import service as jobs
from api.tenancy import owned
from store.contracts import RegistrationRequest
from store.database import database_now
from store.identifiers import new_id
from store.results import NetworkResult
from store.states import JobKind, JobState, Status
from store.tables import Artifact, Job, Model, ModelLineage
from store.versions import next_version

FORMAT = "cstar-architecture"
_WEIGHTS, _NETWORK = "checkpoint", "architecture"


def register(
    session: Session, job_id: str, request: RegistrationRequest, *, tenant_id: str
) -> tuple[Model, bool]:
    """Make a model of the network a job left; returns it, and whether it is new.

    It is ready at once: the job has loaded it in a fresh process and scored it before it
    succeeded. The same job under the same name is the same version. Raises NotFound,
    InvalidTransition before the job has succeeded, InvalidRequest when it left no network.
    """
    job = jobs.get(session, job_id, tenant_id=tenant_id, lock="update")  # one registers, one waits
    artifacts = _artifacts(session, job)
    known = _registered(session, job, request)
    if known is not None:
        return known, False
    parent = session.get_one(Model, job.model_id)
    own = {"tenant_id": tenant_id, "name": request.name or parent.name}
    after, base = _figures(job), parent.architecture
    model = Model(
        id=new_id("mdl"),
        version=next_version(session, **own),
        requested={},
        status=Status.READY,
        reasons=[],
        architecture={"name": FORMAT, "arguments": {"version": 1}, "base": base},
        input=parent.input,
        num_classes=parent.num_classes,
        parameters=after.parameters,
        macs=after.macs,
        weights_sha256=artifacts[_WEIGHTS],
        network_sha256=artifacts[_NETWORK],
        created_at=database_now(session),
        **own,
    )
    session.add(model)
    session.flush()
    session.add(ModelLineage(model_id=model.id, parent_model_id=parent.id, job_id=job.id))
    session.flush()
    return model, True


def is_registered(
    session: Session, job_id: str, request: RegistrationRequest, *, tenant_id: str
) -> bool:
    """Say whether `register` would find the model there already; raises NotFound."""
    job = jobs.get(session, job_id, tenant_id=tenant_id)
    return _registered(session, job, request) is not None


def _artifacts(session: Session, job: Job) -> dict[str, str]:
    """Return the SHA-256 of weights and network of a compression that has succeeded."""
    if job.kind != JobKind.COMPRESS:
        detail = "An evaluation leaves no network; name a compression."
        raise InvalidRequest(detail, faults=[Fault(detail, parameter="job_id")])
    if job.state != JobState.SUCCEEDED:
        raise InvalidTransition(
            f"A job that is {job.state} has left no network; GET /v1/jobs/{job.id} with "
            "`Prefer: wait=60` until it has succeeded.",
            members={"state": job.state},
        )
    rows = select(Artifact).where(Artifact.job_id == job.id)
    found = {row.kind: row.sha256 for row in session.scalars(rows)}
    if missing := {_WEIGHTS, _NETWORK} - found.keys():
        detail = f"The job left no {' and no '.join(sorted(missing))}; run it again."
        raise InvalidRequest(detail, faults=[Fault(detail, parameter="job_id")])
    return found


def _figures(job: Job) -> NetworkResult:
    try:
        return NetworkResult.model_validate((job.result or {}).get("after"))
    except ValidationError:
        detail = "The job left no figures of its network; run it again."
        raise InvalidRequest(detail, faults=[Fault(detail, parameter="job_id")]) from None


def _registered(session: Session, job: Job, request: RegistrationRequest) -> Model | None:
    name = request.name or session.get_one(Model, job.model_id).name
    made = select(ModelLineage.model_id).where(ModelLineage.job_id == job.id)
    statement = owned(Model, job.tenant_id).where(Model.name == name, Model.id.in_(made))
    return session.scalar(statement)
