"""`Client`: one service, one key, and everything that can be done there."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from cstar_client.configuration import resolve
from cstar_client.resources.architectures import Architectures
from cstar_client.resources.audit import Audit
from cstar_client.resources.datasets import Datasets
from cstar_client.resources.files import Files
from cstar_client.resources.jobs import Jobs
from cstar_client.resources.keys import Keys
from cstar_client.resources.models import Models
from cstar_client.resources.plans import Plans
from cstar_client.resources.sweeps import Sweeps
from cstar_client.resources.usage import Usages
from cstar_client.resources.webhooks import Webhooks
from cstar_client.resources.workers import Workers
from cstar_client.retrying import OnRetry, Retries
from cstar_client.transport import Transport

DEFAULT_RETRIES = Retries()
TIMEOUT_S = 60.0  # without a byte; a long poll is answered within 20 s


class Client:
    """Speaks to one service with one key; use as a context manager.

    A request that failed in passing is sent again (`retries`), a creating one with the same
    Idempotency-Key, so that it creates once. `on_retry` is told of each failure and pause.
    """

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        timeout_s: float = TIMEOUT_S,
        retries: Retries = DEFAULT_RETRIES,
        on_retry: OnRetry | None = None,
    ) -> None:
        self.transport = Transport(
            url, api_key, timeout_s=timeout_s, retries=retries, on_retry=on_retry
        )
        self.files = Files(self.transport)
        self.models = Models(self.transport)
        self.datasets = Datasets(self.transport)
        self.plans = Plans(self.transport)
        self.jobs = Jobs(self.transport)
        self.sweeps = Sweeps(self.transport)
        self.architectures = Architectures(self.transport)
        self.workers = Workers(self.transport)
        self.webhooks = Webhooks(self.transport)
        self.keys = Keys(self.transport)
        self.usage = Usages(self.transport)
        self.audit = Audit(self.transport)

    @classmethod
    def from_environment(
        cls,
        *,
        timeout_s: float = TIMEOUT_S,
        retries: Retries = DEFAULT_RETRIES,
        on_retry: OnRetry | None = None,
    ) -> Self:
        """Find address and key in CSTAR_URL and CSTAR_API_KEY, the user's file, or a local stack.

        Raises ConfigurationError with the next step.
        """
        access = resolve()
        return cls(
            access.url, access.api_key, timeout_s=timeout_s, retries=retries, on_retry=on_retry
        )

    def close(self) -> None:
        """Close all connections."""
        self.transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
