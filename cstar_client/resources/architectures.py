"""`client.architectures`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from cstar_client.documents import Architecture
from cstar_client.transport import Transport


@dataclass(frozen=True)
class Architectures:
    """What a model can be told to be in place of `"auto"`."""

    transport: Transport

    def list(self) -> Sequence[Architecture]:
        """Return every architecture that the service knows."""
        return cast("Sequence[Architecture]", self.transport.get("/v1/architectures")["data"])
