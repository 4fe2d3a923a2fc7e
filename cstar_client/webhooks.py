"""Verifying a delivery by Standard Webhooks: that it is ours, whole and recent.

In a receiver: `event = verify(request.headers, request.body, secret)`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

from cstar_client.errors import InvalidSignature

PREFIX = "whsec_"
TOLERANCE_S = 300
LONGEST_TIMESTAMP = 12  # digits


def verify(
    headers: Mapping[str, str],
    body: bytes,
    secret: str | Iterable[str],
    *,
    tolerance_s: float = TOLERANCE_S,
    now: float | None = None,
) -> dict[str, Any]:
    """Return the document of a delivery; raises InvalidSignature, ValueError for a bad secret.

    `body` is what arrived, byte for byte. Several secrets are those of a rotation. Deliveries are
    repeated: keep the `webhook-id`s of the last days, and ignore one that was seen.
    https://www.standardwebhooks.com
    """
    found = {name.lower(): value for name, value in headers.items()}
    identifier, sent_at = _header(found, "webhook-id"), _header(found, "webhook-timestamp")
    _check_age(sent_at, time.time() if now is None else now, tolerance_s)
    signed = _bytes(f"{identifier}.{sent_at}.") + body
    given = _header(found, "webhook-signature").split()
    secrets = [secret] if isinstance(secret, str) else list(secret)
    expected = [_signature(_key(one), signed) for one in secrets]
    # no early end: how long it takes tells nothing of which one fits
    if not sum(_same(one, other) for one in given for other in expected):
        raise InvalidSignature("no signature of this delivery fits the secret")
    return dict(json.loads(body))


def _header(headers: Mapping[str, str], name: str) -> str:
    if not headers.get(name):
        raise InvalidSignature(f"the delivery has no {name}")
    return headers[name]


def _check_age(sent_at: str, now: float, tolerance_s: float) -> None:
    if not (sent_at.isascii() and sent_at.isdecimal() and len(sent_at) <= LONGEST_TIMESTAMP):
        raise InvalidSignature("webhook-timestamp is no number of seconds")
    if abs(now - int(sent_at)) > tolerance_s:
        raise InvalidSignature(f"the delivery was sent more than {tolerance_s:g} s from now")


def _key(secret: str) -> bytes:
    """Return the bytes of a secret; raises ValueError, also for an empty one, which all know."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError(f"the secret is not {PREFIX} and base64") from error
    if not key:
        raise ValueError("the secret is empty")
    return key


def _signature(key: bytes, signed: bytes) -> str:
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(_bytes(one), _bytes(other))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # some servers leave surrogates for bad bytes
