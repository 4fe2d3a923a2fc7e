"""Who asks: the tenant and key of a request, and what that key may do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Principal:
    """The owner of a request's key, the key, and its scopes."""

    tenant_id: str
    key_id: str
    scopes: frozenset[str]
