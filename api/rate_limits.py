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
from limits import RateLimitItem, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, RedisStorage, Storage

from api.middleware import add_headers
from api.problems import HttpError
from store.settings import Settings

PATIENCE_S = 0.5  # for Redis
FORGET_S = 60.0  # between two looks for counts that are over
RECOVER_S = 5.0  # without asking Redis again once it failed
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Used:
    """How many of a window were used, and for how many seconds more it lasts."""

    count: int
    left_s: int


@dataclass(frozen=True)
class Policy:
    """So many a minute, under the name that the headers tell; `advice` begins the refusal."""

    name: str
    item: RateLimitItem
    advice: str

    def exceeded(self, used: Used) -> HttpError:
        """Return the 429 problem."""
        detail = f"{self.advice} {self.item.amount} a minute; try again in {used.left_s} s."
        return HttpError("rate_limited", detail, headers={"Retry-After": str(used.left_s)})

    def tell(self, request: Request, used: Used) -> None:
        """Have the answer say what is left, and for how many seconds."""
        left = max(0, self.item.amount - used.count)
        stated = f'"{self.name}";q={self.item.amount};w={self.item.get_expiry()}'
        now = f'"{self.name}";r={left};t={used.left_s}'
        add_headers(request.scope, {"RateLimit-Policy": stated, "RateLimit": now})


class RateLimits:
    """The counts of this process, or of all; a policy of 0 a minute is none."""

    def __init__(self, settings: Settings) -> None:
        self._storage = _storage(settings)
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
        await self._check(request, self._of_keys, key_id, cost=1)

    async def count_failure(self, request: Request) -> None:
        """Count a request without a valid key; raises a 429 problem when it is one too many."""
        await self._check(request, self._of_addresses, _address(request), cost=1)

    async def check_address(self, request: Request) -> None:
        """Raise a 429 problem when an address has had its failures: no key is looked up then."""
        await self._check(request, self._of_addresses, _address(request), cost=0)

    async def _check(self, request: Request, policy: Policy, who: str, *, cost: int) -> None:
        """Count `cost` requests; raises a 429 problem when no other would be allowed."""
        used = await self._used(policy, who, cost)
        if used is None:
            return
        if cost:
            policy.tell(request, used)
        if used.count + 1 - cost > policy.item.amount:
            policy.tell(request, used)
            raise policy.exceeded(used)

    async def _used(self, policy: Policy, who: str, cost: int) -> Used | None:
        """Return what is used with these; None where there is no limit, or Redis is away."""
        if not policy.item.amount or time.monotonic() < self._away_until:
            return None
        key, window_s = policy.item.key_for(policy.name, who), policy.item.get_expiry()
        try:
            if cost:
                count = await self._storage.incr(key, window_s, amount=cost)
            else:
                count = await self._storage.get(key)
            ends_at = await self._storage.get_expiry(key)
        except self._storage.base_exceptions as error:
            self._away_until = time.monotonic() + RECOVER_S
            logger.warning("requests are not counted, Redis does not answer: %s", error)
            return None
        return Used(count, max(1, math.ceil(ends_at - time.time())))


class Counts(MemoryStorage):
    """Counts of this process, which forgets those that are over once a while.

    The library's own looks at each of them at every request: 49 ms with 65,000 addresses.
    """

    def __init__(self) -> None:
        super().__init__()
        self._look_at = 0.0

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Add to a count, which lasts for `expiry` seconds from its beginning."""
        now = time.time()
        if not self._look_at - FORGET_S <= now < self._look_at:  # also when the clock was set back
            self._forget(now)
        if await self.get(key) == 0:
            self.expirations[key] = now + expiry
        self.storage[key] += amount
        return self.storage[key]

    def _forget(self, now: float) -> None:
        self._look_at = now + FORGET_S
        for key in [key for key, until in self.expirations.items() if until <= now]:
            del self.storage[key], self.expirations[key]


def _storage(settings: Settings) -> Storage:
    if settings.rate_limit_url is None:
        return Counts()
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
    if address.version == 6 and address.ipv4_mapped:  # a socket that takes both kinds
        return str(address.ipv4_mapped)
    return host if address.version == 4 else str(ipaddress.ip_network((host, 64), strict=False))
