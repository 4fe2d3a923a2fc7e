"""Refusing what would be more than a tenant may have."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TypedDict, Unpack

from pydantic import BaseModel
from sqlalchemy.orm import Session

from api.errors import QuotaExceeded
from store import quotas
from store.settings import Settings
from store.tables import Tenant

_ADVICE = {
    "jobs": "wait for one to end, or cancel one",
    "uploads": "complete or cancel one",
    "keys": "revoke one that is not used",
}
STORED_KNOWN_S = 60.0
_DELETE = "delete what is not needed"


class Amount(BaseModel):
    """How much of something there is, and how much there may be (null: no limit)."""

    used: int
    limit: int | None


class Added(TypedDict, total=False):
    """How much a request adds; 0 checks that there is not too much already."""

    jobs: int
    bytes: int
    models: int
    datasets: int
    uploads: int
    webhook_endpoints: int
    keys: int


@dataclass(frozen=True)
class Quotas:
    """The operator's limits, and the check of every creating transaction."""

    settings: Settings
    _room_until: dict[str, float] = field(default_factory=dict)

    def claim(self, session: Session, tenant_id: str, **added: Unpack[Added]) -> None:
        """Raise QuotaExceeded if the tenant would have too much with what this transaction adds.

        Call it before rows of other tables are locked: it locks the row of the tenant, so that
        of requests at the same moment each sees what the one before it has added.
        """
        tenant = quotas.lock(session, tenant_id)
        for name, more in added.items():
            amount = self._amount(session, tenant, name)
            assert isinstance(more, int)
            if amount.limit is not None and amount.used + more > amount.limit:
                raise _exceeded(name, amount)

    def claim_jobs(self, session: Session, tenant_id: str, count: int = 1) -> None:
        """Raise QuotaExceeded if there would be too many jobs, or is too much stored already.

        Adding up what is stored takes long with many jobs behind (0.1 s with 10,000), and jobs
        that run add to it anyway: what was found within `STORED_KNOWN_S` does, unless it refuses.
        """
        self.claim(session, tenant_id, jobs=count)
        if time.monotonic() >= self._room_until.get(tenant_id, 0.0):
            self.claim(session, tenant_id, bytes=0)
            self._room_until[tenant_id] = time.monotonic() + STORED_KNOWN_S

    def usage(self, session: Session, tenant_id: str) -> dict[str, Amount]:
        """Return what a tenant has and may have, by name."""
        tenant = session.get_one(Tenant, tenant_id)
        return {name: self._amount(session, tenant, name, always=True) for name in quotas.COUNTED}

    def _amount(
        self, session: Session, tenant: Tenant, name: str, *, always: bool = False
    ) -> Amount:
        limit = quotas.limit_of(tenant, name, quotas.defaults(self.settings)[name])
        count = always or limit is not None  # what has no limit is not counted in vain
        return Amount(used=quotas.used(session, tenant.id, name) if count else 0, limit=limit)


def _exceeded(name: str, amount: Amount) -> QuotaExceeded:
    advice = _ADVICE.get(name, _DELETE)
    detail = (
        f"This tenant has {amount.used} of at most {amount.limit} {name}, and this would be more: "
        f"{advice}, or ask the operator for a higher limit."
    )
    members = {"quota": name, "used": amount.used, "limit": amount.limit}
    return QuotaExceeded(detail, members=members)
