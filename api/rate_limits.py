"""How many requests a key may send, and how often an address may come without a good key.

Counted by the library `limits` in fixed windows of a minute: in this process, or for all of them in
Redis (`CSTAR_RATE_LIMIT_URL`). A Redis that is away lets requests through. The headers are those of
https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/.
"""

from __future__ import annotations

import ipaddress
import logging
import math
import time
from dataclasses import dataclass

from fastapi import Request
from limits import RateLimitItem, RateLimitItemPerMinute, WindowStats
from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from limits.aio.strategies import FixedWindowRateLimiter

from api.middleware import add_headers
from api.problems import HttpError
from store.settings import Settings

PATIENCE_S = 0.5  # for Redis
RECOVER_S = 5.0  # without asking Redis again once it failed
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Policy:
    """So many a minute, under the name that the headers tell; `advice` begins the refusal."""

    name: str
    item: RateLimitItem
    advice: str

    def headers(self, stats: WindowStats) -> dict[str, str]:
        """Return the headers that say what is left, and for how many seconds."""
        quota, window_s = self.item.amount, self.item.get_expiry()
        return {
            "RateLimit-Policy": f'"{self.name}";q={quota};w={window_s}',
            "RateLimit": f'"{self.name}";r={stats.remaining};t={_seconds_to(stats.reset_time)}',
        }

    def exceeded(self, stats: WindowStats) -> HttpError:
        """Return the 429 problem."""
        again_s = _seconds_to(stats.reset_time)
        detail = f"{self.advice} {self.item.amount} a minute; try again in {again_s} s."
        return HttpError("rate_limited", detail, headers={"Retry-After": str(again_s)})


class RateLimits:
    """The counts of this process, or of all; a policy of 0 a minute is none."""

    def __init__(self, settings: Settings) -> None:
        self._limiter = FixedWindowRateLimiter(_storage(settings))
        self._of_keys = Policy(
            "requests",
            RateLimitItemPerMinute(settings.rate_limit_per_minute),
            "More requests with this key than",
        )
        self._of_addresses = Policy(
            "failures",
            RateLimitItemPerMinute(settings.failures_per_minute),
            "More requests without a valid key came from this address than",
        )
        self._away_until = 0.0

    async def count(self, request: Request, key_id: str) -> None:
        """Count a request with a key; raises a 429 problem when it is one too many."""
        await self._hit(request, self._of_keys, key_id)

    async def count_failure(self, request: Request) -> None:
        """Count a request without a valid key; raises a 429 problem when it is one too many."""
        await self._hit(request, self._of_addresses, _address(request))

    async def check_address(self, request: Request) -> None:
        """Raise a 429 problem when an address has had its failures: no key is looked up then."""
        policy, address = self._of_addresses, _address(request)
        if (stats := await self._stats(policy, address)) and stats.remaining == 0:
            add_headers(request.scope, policy.headers(stats))
            raise policy.exceeded(stats)

    async def _hit(self, request: Request, policy: Policy, who: str) -> None:
        if not policy.item.amount or self._is_away():
            return
        try:
            allowed = await self._limiter.hit(policy.item, policy.name, who)
        except self._limiter.storage.base_exceptions as error:
            self._lost(error)
            return
        if stats := await self._stats(policy, who):
            add_headers(request.scope, policy.headers(stats))
            if not allowed:
                raise policy.exceeded(stats)

    async def _stats(self, policy: Policy, who: str) -> WindowStats | None:
        if not policy.item.amount or self._is_away():
            return None
        try:
            return await self._limiter.get_window_stats(policy.item, policy.name, who)
        except self._limiter.storage.base_exceptions as error:
            self._lost(error)
            return None

    def _is_away(self) -> bool:
        return time.monotonic() < self._away_until

    def _lost(self, error: Exception) -> None:
        self._away_until = time.monotonic() + RECOVER_S
        logger.warning("requests are not counted, Redis does not answer: %s", error)


def _storage(settings: Settings) -> Storage:
    if settings.rate_limit_url is None:
        return MemoryStorage()
    return RedisStorage(
        settings.rate_limit_url,
        implementation="redispy",
        key_prefix="cstar:rate",
        socket_timeout=PATIENCE_S,
        socket_connect_timeout=PATIENCE_S,
    )


def _address(request: Request) -> str:
    """Return the client's address; of IPv6 its /64, since whoever has one address has all those."""
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return host if address.version == 4 else str(ipaddress.ip_network((host, 64), strict=False))


def _seconds_to(moment: float) -> int:
    return max(1, math.ceil(moment - time.time()))
