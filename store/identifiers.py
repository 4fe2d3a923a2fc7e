"""Prefixed identifiers that sort by creation time (48 bits of milliseconds, 80 random bits)."""

from __future__ import annotations

import secrets
import threading
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford base 32: no i, l, o, u


_lock = threading.Lock()
_last = 0


def new_id(prefix: str) -> str:
    """Return e.g. `job_01jd8...`: the prefix and 26 characters whose order is that of time.

    Those of one process are in the order in which they were made, within a millisecond too.
    """
    global _last  # noqa: PLW0603
    with _lock:
        moment = time.time_ns() // 1_000_000
        number = moment << 80 | secrets.randbits(80)
        if _last >> 80 == moment:
            number = max(number, _last + 1)
        _last = number
    digits = "".join(_ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5))
    return f"{prefix}_{digits}"
