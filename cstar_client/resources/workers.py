"""`client.workers`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from cstar_client.documents import Worker
from cstar_client.transport import Transport


@dataclass(frozen=True)
class Workers:
    """The workers of the service."""

    transport: Transport

    def list(self) -> Sequence[Worker]:
        """Return the workers, the one heard of last first."""
        return cast("Sequence[Worker]", self.transport.get("/v1/workers")["data"])
