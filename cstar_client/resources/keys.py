"""`client.keys`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from cstar_client import lists
from cstar_client.documents import ApiKey, NewApiKey, Reference, segment
from cstar_client.transport import Transport, document


@dataclass(frozen=True)
class Keys:
    """API keys of the tenant."""

    transport: Transport

    def create(
        self,
        name: str,
        *,
        scopes: Sequence[str],
        expires_in_s: int | None = None,
        idempotency_key: str | None = None,
    ) -> NewApiKey:
        """Make a key of some of the scopes one has; its text, `key`, is told this once.

        It ends when one's own key does, at the latest.
        """
        body = {"name": name, "scopes": list(scopes), "expires_in_s": expires_in_s}
        made = self.transport.post("/v1/api-keys", body, idempotency_key=idempotency_key)
        return cast(NewApiKey, made)

    def get(self, key: Reference) -> ApiKey:
        """Return a key without its text."""
        return cast(ApiKey, self.transport.get(_path(key)))

    def list(self) -> Iterator[ApiKey]:
        """Yield all keys, newest first, those that have ended too."""
        return lists.rows(self.transport, "/v1/api-keys")

    def rotate(
        self, key: Reference, *, overlap_s: int | None = None, idempotency_key: str | None = None
    ) -> NewApiKey:
        """Make a key in place of another, which stays good for `overlap_s` seconds."""
        body: dict[str, Any] = {} if overlap_s is None else {"overlap_s": overlap_s}
        path = f"{_path(key)}/rotate"
        return cast(NewApiKey, self.transport.post(path, body, idempotency_key=idempotency_key))

    def revoke(self, key: Reference) -> ApiKey:
        """End a key at once."""
        answer = self.transport.send("POST", f"{_path(key)}/revoke", repeatable=True)
        return cast(ApiKey, document(answer))


def _path(key: Reference) -> str:
    return f"/v1/api-keys/{segment(key)}"
