"""What a client says and sees of webhook endpoints and deliveries."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, computed_field

from store.contracts import Contract, Text
from store.states import DeliveryStatus, DisabledReason, WebhookEvent
from store.tables import WebhookDelivery
from store.webhooks.destinations import MAX_URL_LENGTH

Url = Annotated[
    Text, Field(min_length=1, max_length=MAX_URL_LENGTH, json_schema_extra={"format": "uri"})
]
Description = Annotated[Text, Field(max_length=255)]
Events = Annotated[list[WebhookEvent | Literal["*"]], Field(min_length=1, max_length=32)]
MAX_OVERLAP_S = 7 * 86_400


class WebhookEndpointRequest(Contract):
    """Body of `POST /v1/webhook-endpoints`; `["*"]` stands for every event there is or will be."""

    url: Url
    description: Description = ""
    events: Events = Field(default=["*"])
    enabled: StrictBool = True


class WebhookEndpointChanges(Contract):
    """Body of `PATCH`: what it names, and is not null, is changed.

    Enabling an endpoint forgets why it was disabled.
    """

    url: Url | None = None
    description: Description | None = None
    events: Events | None = None
    enabled: StrictBool | None = None


class SecretRotation(Contract):
    """For how many seconds the old secret signs as well; 0 ends it, and any older one, at once."""

    overlap_s: int = Field(86_400, ge=0, le=MAX_OVERLAP_S)


_NOTICES = {
    DisabledReason.GONE: "It answered 410 Gone. Enable it when it is back.",
    DisabledReason.FAILING: "Nothing was delivered for days. Mend it, test it, then enable it.",
}


class WebhookEndpointDocument(BaseModel):
    """An endpoint without its secret. `failing_since`: no attempt has succeeded since then.

    `disabled_reason` is set when the service itself disabled it; `notice` says what to do then.
    """

    model_config = ConfigDict(from_attributes=True)

    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    url: str
    description: str
    events: list[str]
    enabled: bool
    disabled_reason: DisabledReason | None
    disabled_at: datetime | None
    failing_since: datetime | None
    previous_secret_expires_at: datetime | None
    created_at: datetime

    @computed_field  # type: ignore[prop-decorator]
    @property
    def notice(self) -> str | None:
        """What to do about an endpoint that the service has disabled."""
        return _NOTICES.get(self.disabled_reason) if self.disabled_reason else None


class WebhookEndpointWithSecret(WebhookEndpointDocument):
    """An endpoint as it was just made or rotated.

    The secret is not shown again, not in the answer to the same `Idempotency-Key` either: who has
    lost it rotates it.
    """

    secret: str | None = None


class WebhookDeliveryDocument(BaseModel):
    """A message on its way to one endpoint.

    `webhook_id` is the header of that name, the same at every attempt. `response_status` and
    `error` are those of the last attempt; `next_attempt_at` is null once it has ended.
    """

    model_config = ConfigDict(from_attributes=True)

    id: str
    object: Literal["webhook_delivery"] = "webhook_delivery"
    endpoint_id: str
    webhook_id: str
    type: str
    status: DeliveryStatus
    attempts: int
    response_status: int | None
    error: str | None
    next_attempt_at: datetime | None
    last_attempt_at: datetime | None
    finished_at: datetime | None
    created_at: datetime


_OF_A_DELIVERY = set(WebhookDeliveryDocument.model_fields) - {"object", "webhook_id"}


def delivery_document(delivery: WebhookDelivery) -> WebhookDeliveryDocument:
    """Return the document of a delivery."""
    columns = {name: getattr(delivery, name) for name in _OF_A_DELIVERY}
    return WebhookDeliveryDocument.model_validate(columns | {"webhook_id": delivery.message_id})
