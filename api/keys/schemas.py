"""What a client says and sees of a key."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from store.contracts import Contract, Text
from store.keys import DEFAULT_OVERLAP_S
from store.keys.scopes import MOST

_CENTURY_S = 36_525 * 86_400
_MONTH_S = 30 * 86_400


class KeyRequest(Contract):
    """Body of `POST /v1/api-keys`; without `expires_in_s` a key ends with the one that asks."""

    name: Text = Field(min_length=1, max_length=200)
    scopes: list[Annotated[Text, Field(max_length=80)]] = Field(
        min_length=1, max_length=MOST, examples=[["jobs:read", "jobs:write"]]
    )
    expires_in_s: int | None = Field(None, gt=0, le=_CENTURY_S)


class RotationRequest(Contract):
    """Body of `POST /v1/api-keys/{id}/rotate`: how long the old key stays good; 0 ends it now."""

    overlap_s: int = Field(int(DEFAULT_OVERLAP_S), ge=0, le=_MONTH_S)


class KeyDocument(BaseModel):
    """A key without its text; `prefix` are its first characters.

    `created_by` is the key it was made with, null for one of the operator's. `last_used_at` is a
    minute behind at most.
    """

    model_config = ConfigDict(from_attributes=True)

    id: str
    object: Literal["api_key"] = "api_key"
    name: str
    prefix: str | None
    scopes: list[str]
    created_by: str | None
    rotated_from: str | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class NewKeyDocument(KeyDocument):
    """A key that was just made. `key` is told once: the same request again is answered without."""

    key: str | None = None
