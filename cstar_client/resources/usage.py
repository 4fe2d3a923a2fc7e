"""`client.usage`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from cstar_client.documents import Usage
from cstar_client.transport import Transport


@dataclass(frozen=True)
class Usages:
    """What the tenant has of what is limited."""

    transport: Transport

    def get(self) -> Usage:
        """Return how much there is, and the limits."""
        return cast(Usage, self.transport.get("/v1/usage"))
