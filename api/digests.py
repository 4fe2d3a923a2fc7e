"""`Content-Digest` and `Repr-Digest` with SHA-256 (RFC 9530)."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

from fastapi import Header

from api.problems import HttpError

_PREFIX = "sha-256="
ContentDigest = Annotated[
    str | None,
    Header(
        alias="Content-Digest",
        description="`sha-256=:base64:` (RFC 9530); checked when given",
        json_schema_extra={"pattern": "^sha-256=:[A-Za-z0-9+/]{43}=:$"},  # others may stand by it
    ),
]


def announced_sha256(header: str | None) -> str | None:
    """Return the hexadecimal SHA-256 a `Content-Digest` names; raises a 400 problem.

    An empty field is an empty dictionary, the same as none (RFC 9651, 4.2).
    """
    if header is None or not header.strip():
        return None
    members = [member.strip() for member in header.split(",")]
    values = [member.removeprefix(_PREFIX) for member in members if member.startswith(_PREFIX)]
    if not values:
        raise _unusable("none of its algorithms is sha-256")
    return _decoded(values[-1]).hex()


def field_value(sha256: str) -> str:
    """Return the value of a digest field for a hexadecimal SHA-256."""
    return f"{_PREFIX}:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"


def _decoded(value: str) -> bytes:
    try:
        digest = base64.b64decode(value.strip(":"), validate=True)
    except binascii.Error as error:
        raise _unusable("its sha-256 is not base64") from error
    if len(digest) != 32 or not (value.startswith(":") and value.endswith(":")):
        raise _unusable("its sha-256 is not 32 bytes in base64 between colons")
    return digest


def _unusable(reason: str) -> HttpError:
    wanted = "sha-256=:<base64 of the 32 bytes of the digest>:"
    return HttpError("invalid_digest", f"Content-Digest: {reason}; send {wanted} (RFC 9530).")
