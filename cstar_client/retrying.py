"""When a request is sent again, and how long to wait before: exponential backoff with jitter."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from cstar_client.errors import ApiError, ConnectionFailed

PASSING = frozenset({429, 502, 503, 504})
CONFLICT, TOO_MANY = 409, 429


@dataclass(frozen=True)
class Retries:
    """How patient a client is; all times in seconds.

    The n-th failure in a row is followed by a pause of `first_s * 2**n`, at most `most_s`, of
    which a random half is left out, so that many clients do not come back at once. `Retry-After`
    is waited for when it is longer; one above `longest_s` is an error instead.
    """

    attempts: int = 8
    first_s: float = 0.5
    most_s: float = 30.0
    longest_s: float = 120.0


Failure = ApiError | ConnectionFailed
OnRetry = Callable[[Failure, float], None]
"""Is told of a failure and of the seconds until the next attempt."""


class Patience:
    """Counts the failures of one operation and sleeps between its attempts."""

    def __init__(self, retries: Retries, on_retry: OnRetry | None) -> None:
        self._retries, self._on_retry = retries, on_retry
        self._failures = 0

    def renew(self) -> None:
        """Forget the failures so far: the operation has moved on."""
        self._failures = 0

    def endure(self, failure: Failure, *, repeatable: bool = True) -> None:
        """Sleep until the next attempt; raises `failure` where none is due.

        `repeatable`: sent twice, the request does what it does once.
        """
        self._failures += 1
        pause_s = self._pause_s(failure)
        given_up = self._failures >= self._retries.attempts or pause_s > self._retries.longest_s
        if given_up or not _may_pass(failure, repeatable):
            raise failure
        if self._on_retry is not None:
            self._on_retry(failure, pause_s)
        time.sleep(pause_s)

    def _pause_s(self, failure: Failure) -> float:
        ceiling: float = min(
            self._retries.most_s, self._retries.first_s * 2 ** (self._failures - 1)
        )
        pause_s = ceiling * random.uniform(0.5, 1.0)
        asked = failure.retry_after_s if isinstance(failure, ApiError) else None
        return max(pause_s, asked or 0.0)


def _may_pass(failure: Failure, repeatable: bool) -> bool:
    """Say whether the same request may succeed later and does no harm when it is sent again."""
    if isinstance(failure, ConnectionFailed):
        return repeatable or not failure.sent
    if failure.status == CONFLICT:
        return repeatable and failure.retry_after_s is not None
    return failure.status == TOO_MANY or (repeatable and failure.status in PASSING)


def retry_after_s(value: str | None) -> float | None:
    """Return the seconds of a `Retry-After` header (RFC 9110, 10.2.3): a number or a date."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
