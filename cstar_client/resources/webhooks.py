"""`client.webhooks`; `cstar_client.webhooks` verifies what arrives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from cstar_client import lists
from cstar_client.documents import (
    NewWebhookEndpoint,
    Reference,
    WebhookDelivery,
    WebhookEndpoint,
    segment,
)
from cstar_client.transport import Transport, document

EVERY_EVENT = ("*",)


@dataclass(frozen=True)
class Webhooks:
    """Addresses that are told what happens."""

    transport: Transport

    def create(
        self,
        url: str,
        *,
        events: Sequence[str] = EVERY_EVENT,
        description: str = "",
        idempotency_key: str | None = None,
    ) -> NewWebhookEndpoint:
        """Add an address; the `secret` that signs is told this once."""
        body = {"url": url, "events": list(events), "description": description}
        made = self.transport.post("/v1/webhook-endpoints", body, idempotency_key=idempotency_key)
        return cast(NewWebhookEndpoint, made)

    def get(self, endpoint: Reference) -> WebhookEndpoint:
        """Return an endpoint without its secret."""
        return cast(WebhookEndpoint, self.transport.get(_path(endpoint)))

    def list(self) -> Iterator[WebhookEndpoint]:
        """Yield all endpoints, newest first."""
        return lists.rows(self.transport, "/v1/webhook-endpoints")

    def update(self, endpoint: Reference, **changes: Any) -> WebhookEndpoint:
        """Change `url`, `events`, `description` or `enabled`."""
        answer = self.transport.send("PATCH", _path(endpoint), json=changes, repeatable=True)
        return cast(WebhookEndpoint, document(answer))

    def delete(self, endpoint: Reference) -> None:
        """Remove an endpoint."""
        self.transport.send("DELETE", _path(endpoint))

    def rotate_secret(
        self, endpoint: Reference, *, overlap_s: int | None = None
    ) -> NewWebhookEndpoint:
        """Have a new secret sign; the old one signs as well for `overlap_s` seconds."""
        body = {} if overlap_s is None else {"overlap_s": overlap_s}
        made = self.transport.post(f"{_path(endpoint)}/rotate-secret", body)
        return cast(NewWebhookEndpoint, made)

    def test(self, endpoint: Reference) -> WebhookDelivery:
        """Send `webhook.test` once."""
        return cast(WebhookDelivery, self.transport.post(f"{_path(endpoint)}/test"))

    def deliveries(
        self, endpoint: Reference, *, status: str | None = None
    ) -> Iterator[WebhookDelivery]:
        """Yield what was sent to an endpoint and how it went, newest first."""
        return lists.rows(self.transport, f"{_path(endpoint)}/deliveries", status=status)

    def redeliver(self, delivery: Reference) -> WebhookDelivery:
        """Send the same message again, now."""
        path = f"/v1/webhook-deliveries/{segment(delivery)}/redeliver"
        return cast(WebhookDelivery, self.transport.post(path))


def _path(endpoint: Reference) -> str:
    return f"/v1/webhook-endpoints/{segment(endpoint)}"
