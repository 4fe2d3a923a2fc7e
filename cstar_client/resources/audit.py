"""`client.audit`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cstar_client import lists
from cstar_client.documents import AuditEvent, Reference, identifier
from cstar_client.transport import Transport


@dataclass(frozen=True)
class Audit:
    """Who changed what."""

    transport: Transport

    def list(
        self,
        *,
        action: str | None = None,
        changed: Reference | None = None,
        key: Reference | None = None,
    ) -> Iterator[AuditEvent]:
        """Yield all changes, newest first: of one kind, of one thing, with one key.

        `action` is an `operationId` of openapi.json, such as `create_job`.
        """
        return lists.rows(
            self.transport,
            "/v1/audit-events",
            action=action,
            object_id=None if changed is None else identifier(changed),
            key_id=None if key is None else identifier(key),
        )
