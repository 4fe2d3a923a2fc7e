"""`client.plans`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from cstar_client import lists, waiting
from cstar_client.documents import Compression, Plan, Profile, Reference, identifier, segment
from cstar_client.errors import JobFailed
from cstar_client.transport import Transport

SETTLED = frozenset({"ready", "failed"})


@dataclass(frozen=True)
class Plans:
    """Dry runs: the ranks that a job would choose among; nothing is trained."""

    transport: Transport

    def create(
        self,
        model: Reference,
        compression: Compression,
        *,
        profile: Profile = "quick",
        rank_multiple: int | None = None,
        idempotency_key: str | None = None,
    ) -> Plan:
        """Ask for a dry run; raises InvalidRequest, with `best` in its problem, out of reach."""
        body = {
            "model_id": identifier(model),
            "profile": profile,
            "targets": {"compression": compression},
            "options": {"rank_multiple": rank_multiple},
        }
        return cast(Plan, self.transport.post("/v1/plans", body, idempotency_key=idempotency_key))

    def get(self, plan: Reference) -> Plan:
        """Return a dry run."""
        return cast(Plan, self.transport.get(f"/v1/plans/{segment(plan)}"))

    def list(self, *, model: Reference | None = None) -> Iterator[Plan]:
        """Yield all dry runs, or those of a model, newest first, without their candidates."""
        model_id = None if model is None else identifier(model)
        return lists.rows(self.transport, "/v1/plans", model_id=model_id)

    def delete(self, plan: Reference) -> None:
        """Delete a dry run."""
        self.transport.send("DELETE", f"/v1/plans/{segment(plan)}")

    def wait(self, plan: Reference, *, timeout_s: float | None = None) -> Plan:
        """Return a dry run once it is ready; raises JobFailed (with `best`) or Timeout."""
        path = f"/v1/plans/{segment(plan)}"
        found = waiting.until(self.transport, path, SETTLED, timeout_s=timeout_s)
        if found["status"] == "failed":
            raise JobFailed(found)
        return cast(Plan, found)
