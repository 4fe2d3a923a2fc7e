"""API keys: their text, their rows, what they may do, and the operator's command for them.

`python -m store.keys create --tenant NAME` makes the first key of a deployment.
"""

from store.keys.records import (
    DEFAULT_OVERLAP_S,
    KeyInvalid,
    KeyRefused,
    authenticate,
    create_key,
    create_tenant,
    issue,
    revoke,
    rotate,
    tenant_named,
    tenant_of,
)
from store.keys.scopes import EVERYTHING, allows

__all__ = [
    "DEFAULT_OVERLAP_S",
    "EVERYTHING",
    "KeyInvalid",
    "KeyRefused",
    "allows",
    "authenticate",
    "create_key",
    "create_tenant",
    "issue",
    "revoke",
    "rotate",
    "tenant_named",
    "tenant_of",
]
