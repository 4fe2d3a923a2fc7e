"""Keys that were found good a moment ago, so that a client that polls is not looked up each time.

Measured: the lookup took a third of a status poll, most of it the way through another thread.
The price: a key that is revoked opens this process for up to `TRUSTED_S` more.
"""

from __future__ import annotations

import hashlib
import time

TRUSTED_S = 5.0
MOST = 4096


class KnownKeys:
    """Tenants by the digest of their keys; only good keys are kept, and none for long."""

    def __init__(self) -> None:
        self._tenants: dict[bytes, tuple[str, float]] = {}

    def tenant_of(self, key: str) -> str | None:
        """Return the tenant of a key that was good within `TRUSTED_S`."""
        tenant_id, until = self._tenants.get(_digest(key), ("", 0.0))
        return tenant_id if time.monotonic() < until else None

    def trust(self, key: str, tenant_id: str) -> None:
        """Keep a key that was just found good."""
        if len(self._tenants) >= MOST:
            self._tenants.clear()
        self._tenants[_digest(key)] = (tenant_id, time.monotonic() + TRUSTED_S)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
