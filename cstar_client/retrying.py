"""When a request is sent again, and for how long: exponential backoff with jitter."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NoReturn

from cstar_client.errors import ApiError, ConnectionFailed, Timeout

PASSING = frozenset({429, 502, 503, 504})
CONFLICT, TOO_MANY = 409, 429
MOST_DOUBLINGS = 64


@dataclass(frozen=True)
class Retries:
    """How patient a client is; all times in seconds.

    An operation goes on for `total_s` after the first failure in a row, and the last attempt is at
    the end of that; 0 is one attempt. The n-th failure is followed by a pause of `first_s * 2**n`,
    at most `most_s`, of which a random half is left out, so that many clients do not come back at
    once. `Retry-After` is waited for when it is longer; one past the end is an error instead.
    `attempts` ends it after so many failures, however long they took.
    """

    total_s: float = 60.0
    first_s: float = 0.5
    most_s: float = 10.0
    attempts: int | None = None


Failure = ApiError | ConnectionFailed
OnRetry = Callable[[Failure, float], None]
"""Is told of a failure and of the seconds until the next attempt."""


class Patience:
    """Counts the failures of one operation and sleeps between its attempts.

    `deadline`: when whoever waits has had enough, in the time of `time.monotonic`.
    """

    def __init__(
        self, retries: Retries, on_retry: OnRetry | None, *, deadline: float | None = None
    ) -> None:
        self._retries, self._on_retry = retries, on_retry
        self._deadline = math.inf if deadline is None else deadline
        self._failures = 0
        self._until = math.inf

    def renew(self) -> None:
        """Forget the failures so far: the operation has moved on."""
        self._failures = 0

    def endure(self, failure: Failure, *, repeatable: bool = True) -> None:
        """Sleep until the next attempt; raises `failure` where none is due, Timeout at a deadline.

        `repeatable`: sent twice, the request does what it does once.
        """
        now = time.monotonic()
        if self._failures == 0:
            self._until = now + self._retries.total_s
        self._failures += 1
        if self._failures == self._retries.attempts or not _may_pass(failure, repeatable):
            raise failure
        asked_s = (failure.retry_after_s if isinstance(failure, ApiError) else None) or 0.0
        left_s = min(self._until, self._deadline) - now
        if left_s <= 0 or asked_s > left_s:
            self._give_up(failure)
        pause_s = max(asked_s, min(self._backoff_s(), left_s))
        if self._on_retry is not None:
            self._on_retry(failure, pause_s)
        time.sleep(pause_s)

    def _give_up(self, failure: Failure) -> NoReturn:
        if self._deadline <= self._until:
            raise Timeout(f"the time is over; at last: {failure}") from failure
        raise failure

    def _backoff_s(self) -> float:
        doubled = self._retries.first_s * 2.0 ** min(self._failures - 1, MOST_DOUBLINGS)
        return min(self._retries.most_s, doubled) * random.uniform(0.5, 1.0)


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
        found = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    moment = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
