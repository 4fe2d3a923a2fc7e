"""`Idempotency-Key`: a request that creates something may be sent again, and creates it once.

Every creating endpoint takes `once: OnceDep` and answers with `return once(create)`, where
`create(session)` makes the thing and returns what to say of it. Without the header that is all;
with it the answer is kept for a day and given again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypeAlias

from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel
from sqlalchemy.orm import Session

from api.audit import trail
from api.auth import TenantId
from api.dependencies import Services, ServicesDep
from api.errors import DomainError
from store import idempotency
from store.idempotency import Answer

REPLAYED = "Idempotency-Replayed"
IDEMPOTENCY_PROBLEMS = ("idempotency_in_progress", "idempotency_key_reused")
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern="^[ -~]+$",
        description="Sent again with the same key within a day, the request creates nothing more",
    ),
]


class IdempotencyKeyReused(DomainError):
    """The key came before, with another request."""

    code = "idempotency_key_reused"


class IdempotencyInProgress(DomainError):
    """The first request under the key is still being carried out."""

    code = "idempotency_in_progress"


@dataclass(frozen=True)
class Created:
    """What an endpoint made: its document, where it is, and the status to answer with.

    `secrets` are fields that are told once: a repeated request is answered without them.
    """

    document: BaseModel
    location: str
    status: int = 202
    secrets: frozenset[str] = frozenset()

    def answer(self) -> Answer:
        """Return what the client is told."""
        return Answer(self.status, self.document.model_dump_json(), self.location)

    def kept(self) -> Answer:
        """Return what a repeated request is told."""
        body = self.document.model_dump_json(exclude=set(self.secrets))
        return Answer(self.status, body, self.location)


Create: TypeAlias = Callable[[Session], Created]


@dataclass(frozen=True)
class Once:
    """Carries out a request of a tenant once, in a transaction of its own."""

    services: Services
    tenant_id: str
    key: str | None
    request: Request
    body: bytes

    def __call__(self, create: Create) -> Response:
        """Answer with what `create` made, or with what was answered under this key before.

        Raises what `create` raises (nothing is kept then), IdempotencyKeyReused and
        IdempotencyInProgress.
        """
        answer, headers = self.answer(create)
        if answer.location is not None:
            headers["Location"] = answer.location
        return Response(answer.body, answer.status, media_type="application/json", headers=headers)

    def answer(self, create: Create) -> tuple[Answer, dict[str, str]]:
        """Return the answer, and the header of one that was given before: for what goes on."""
        try:
            with self.services.database.writing() as session:
                return self._carry_out(session, create)
        except idempotency.KeyReused as error:
            raise IdempotencyKeyReused(
                "This Idempotency-Key came with another method, path or body before; "
                "send a new key with a new request, and the same key only with the same request."
            ) from error
        except idempotency.InProgress as error:
            raise IdempotencyInProgress(
                "The first request with this Idempotency-Key is still being carried out; "
                "send it again, with the same key."
            ) from error

    def _carry_out(self, session: Session, create: Create) -> tuple[Answer, dict[str, str]]:
        if self.key is None:
            return create(session).answer(), {}
        place = {"tenant_id": self.tenant_id, "key": self.key}
        before = idempotency.claim(session, **place, fingerprint=self._fingerprint())
        if before is not None:
            trail.repeats(session)
            return before, {REPLAYED: "true"}
        created = create(session)
        idempotency.keep(session, created.kept(), **place)
        return created.answer(), {}

    def _fingerprint(self) -> str:
        """Return the SHA-256 of method, path with query, and body."""
        url = self.request.url
        parts = (self.request.method, url.path, url.query, _canonical(self.body))
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _canonical(body: bytes) -> str:
    """Return JSON with its members in order, or the digest of what is none."""
    try:
        return json.dumps(json.loads(body), sort_keys=True)
    except (ValueError, RecursionError):
        return hashlib.sha256(body).hexdigest()


async def once(
    request: Request, services: ServicesDep, tenant_id: TenantId, key: IdempotencyKey = None
) -> Once:
    """Return what carries this request out once."""
    return Once(services, tenant_id, key, request, await request.body())


OnceDep = Annotated[Once, Depends(once)]
