"""Creating models and finding them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, exists, select
from sqlalchemy.orm import Session

from api.errors import Fault, InvalidArguments, UnknownArchitecture
from api.files.service import named_in_body
from api.models.schemas import ModelDocument, model_document
from api.pagination import Cursor, Slice, keyset
from api.pointers import json_pointer
from api.tenancy import owned
from store.catalog import architectures
from store.contracts import ModelRequest, NamedArchitecture, document
from store.database import database_now
from store.identifiers import new_id
from store.states import JobKind, Status
from store.submit import IO_QUEUE, submit
from store.tables import Model, ModelAlias, ModelLineage
from store.versions import next_version


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
        version=next_version(session, tenant_id=tenant_id, name=request.name),
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


def page(
    session: Session,
    cursor: Cursor,
    *,
    tenant_id: str,
    name: str | None = None,
    alias: str | None = None,
    parent_model_id: str | None = None,
) -> Slice[Model]:
    """Return a page of the tenant's models: those of a name, an alias, a parent, if given."""
    statement = owned(Model, tenant_id)
    if name is not None:
        statement = statement.where(Model.name == name)
    if alias is not None:
        statement = statement.where(_is(ModelAlias, ModelAlias.alias == alias))
    if parent_model_id is not None:
        made = ModelLineage.parent_model_id == parent_model_id
        statement = statement.where(_is(ModelLineage, made))
    return keyset(session, statement, Model.id, cursor)


def documents(session: Session, models: Sequence[Model]) -> list[ModelDocument]:
    """Return the documents of models, with where they come from and what points to them."""
    ids = [model.id for model in models]
    rows = session.scalars(select(ModelLineage).where(ModelLineage.model_id.in_(ids)))
    lineage = {row.model_id: row for row in rows}
    aliases: dict[str, list[str]] = {model_id: [] for model_id in ids}
    pointing = select(ModelAlias).where(ModelAlias.model_id.in_(ids)).order_by(ModelAlias.alias)
    for row in session.scalars(pointing):
        aliases[row.model_id].append(row.alias)
    return [
        model_document(model, lineage=lineage.get(model.id), aliases=aliases[model.id])
        for model in models
    ]


def document_of(session: Session, model: Model) -> ModelDocument:
    """Return the document of one model."""
    return documents(session, [model])[0]


def _is(table: type[ModelAlias | ModelLineage], condition: ColumnElement[bool]) -> Any:
    return exists().where(table.model_id == Model.id, condition)
