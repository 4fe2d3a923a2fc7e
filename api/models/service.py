"""Creating models and finding them."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy.orm import Session

from api.errors import Fault, InvalidArguments, UnknownArchitecture
from api.files.service import named_in_body
from api.pagination import Cursor, Slice, keyset
from api.pointers import json_pointer
from api.tenancy import find, owned
from store.catalog import architectures
from store.contracts import ModelRequest, NamedArchitecture, document
from store.database import database_now
from store.identifiers import new_id
from store.states import JobKind, Status
from store.submit import IO_QUEUE, submit
from store.tables import Model


def create(session: Session, request: ModelRequest, *, tenant_id: str) -> Model:
    """Add a model and the job that validates it, in one transaction."""
    file = named_in_body(session, request.file_id, tenant_id=tenant_id, purpose="checkpoint")
    if isinstance(request.architecture, NamedArchitecture):
        check_architecture(request.architecture)
    requested = document(request)
    model = Model(
        id=new_id("mdl"),
        tenant_id=tenant_id,
        name=request.name,
        file_id=file.id,
        requested=requested,
        status=Status.VALIDATING,
        reasons=[],
        input=requested["input"],
        num_classes=request.num_classes,
        created_at=database_now(session),
    )
    session.add(model)
    session.flush()
    submit(
        session,
        tenant_id=tenant_id,
        kind=JobKind.VALIDATE_MODEL,
        queue=IO_QUEUE,
        request=requested,
        model_id=model.id,
    )
    return model


def check_architecture(requested: NamedArchitecture) -> None:
    """Raise UnknownArchitecture or InvalidArguments, each with the names there are."""
    known = {architecture.name: architecture for architecture in architectures()}
    if requested.name not in known:
        detail = (
            f'There is no architecture "{requested.name}"; known: {", ".join(known)}. '
            'Or send "auto" to have it recognised from the weights.'
        )
        faults = [Fault(detail, pointer="/architecture/name")]
        raise UnknownArchitecture(detail, faults=faults, members={"known": list(known)})
    defaults = known[requested.name].arguments
    faults = [
        Fault(f"{requested.name} takes {_listed(defaults)}", pointer=_argument_pointer(name))
        for name, value in requested.arguments.items()
        if type(value) is not type(defaults.get(name))
    ]
    if faults:
        raise InvalidArguments(faults[0].detail + ".", faults=faults)


def _listed(defaults: Mapping[str, int | bool | str]) -> str:
    return ", ".join(
        f"{name} ({type(default).__name__}, default {default})"
        for name, default in defaults.items()
    )


def _argument_pointer(name: str) -> str:
    return json_pointer(["architecture", "arguments", name])


def page(session: Session, cursor: Cursor, *, tenant_id: str) -> Slice[Model]:
    """Return a page of the tenant's models."""
    return keyset(session, owned(Model, tenant_id), Model.id, cursor)


def get(session: Session, model_id: str, *, tenant_id: str) -> Model:
    """Return a model; raises NotFound."""
    return find(session, Model, model_id, tenant_id=tenant_id)
