"""The trail of requests that change something, written in the transaction of the change.

The request is noted when its key was found good, in a context variable: FastAPI runs endpoints in
the context of that dependency, also those that run in a thread. Every transaction that such a
request writes then ends with an event. An endpoint has to do nothing for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from sqlalchemy import event, inspect
from sqlalchemy.orm import Session

from api.middleware import request_id_of
from api.principal import Principal
from api.scopes import READING
from store import audit
from store.database import Database

_LONGEST = 255
_REPEATED = "repeated"
_UNTOLD = frozenset({"upload_part"})  # up to 1000 a file; that it was completed is told


@dataclass
class _Change:
    """A request that may change something; `collection` is the last fixed part of its path.

    Of several transactions the first tells of the request, and those that make something.
    """

    principal: Principal
    action: str
    collection: str
    object_id: str | None
    request_id: str
    client_address: str | None
    told: bool = False


_change: ContextVar[_Change | None] = ContextVar("cstar_change", default=None)


def note(request: Request, principal: Principal) -> None:
    """Let the transactions of this request tell of it, if it is one that changes something."""
    route = request.scope["route"]
    quiet = request.method in READING or route.operation_id in _UNTOLD
    _change.set(None if quiet else _described(request, principal))


def repeats(session: Session) -> None:
    """Leave no event of this transaction: its request was carried out, and told of, before."""
    session.info[_REPEATED] = True


class AuditedDatabase(Database):
    """A database whose writing transactions say on behalf of which request they were made."""

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Open a transaction that may write; of a request, it leaves an event in the audit."""
        change = _change.get()
        with super().writing() as session:
            if change is None:
                yield session
                return
            made: list[Any] = []
            event.listen(session, "pending_to_persistent", lambda _, row: made.append(row))
            yield session
            session.flush()
            repeated = session.info.get(_REPEATED, False)
            told = not repeated and _tell(session, change, _owned_rows(made))
        change.told |= told


def _described(request: Request, principal: Principal) -> _Change:
    route = request.scope["route"]
    named = [value for name, value in request.path_params.items() if name.endswith("_id")]
    fixed = [part for part in route.path.split("/") if part and not part.startswith("{")]
    return _Change(
        principal=principal,
        action=route.operation_id,
        collection=fixed[-1].replace("-", "_"),
        object_id=named[-1][:_LONGEST] if named else None,
        request_id=request_id_of(request.scope),
        client_address=request.client.host[:_LONGEST] if request.client else None,
    )


def _owned_rows(made: Sequence[Any]) -> list[Any]:
    """Return the rows that a tenant can name; the rest (events, outbox, ...) is part of them."""
    return [
        row
        for row in made
        if inspect(row).persistent and hasattr(row, "tenant_id") and hasattr(row, "id")
    ]


def _tell(session: Session, change: _Change, made: Sequence[Any]) -> bool:
    object_id = change.object_id or _chief(made, change.collection)
    if object_id is None or (change.told and not made):  # nothing new
        return False
    audit.record(
        session,
        tenant_id=change.principal.tenant_id,
        key_id=change.principal.key_id,
        action=change.action,
        object_id=object_id,
        created=[row.id for row in made],
        request_id=change.request_id,
        client_address=change.client_address,
    )
    return True


def _chief(made: Sequence[Any], collection: str) -> str | None:
    """Return the id of what the request asked for, of all that was made with it."""
    asked = [row for row in made if row.__tablename__ == collection] or made
    return str(asked[0].id) if asked else None
