"""What a key may do: `<resource>:read`, `<resource>:write`, or `*` for everything.

The API derives the scope a request needs from its route (`api.scopes`).
"""

from __future__ import annotations

import re
from collections.abc import Collection

EVERYTHING = "*"
MOST = 64
_SCOPE = re.compile(r"\*|[a-z][a-z_]{0,62}:(read|write)", re.ASCII)


def is_scope(text: str) -> bool:
    """Say whether a text has the form of a scope; whether there is such a resource is not asked."""
    return _SCOPE.fullmatch(text) is not None


def allows(held: Collection[str], wanted: str) -> bool:
    """Say whether a key with the scopes `held` may do what needs `wanted`."""
    return EVERYTHING in held or wanted in held
