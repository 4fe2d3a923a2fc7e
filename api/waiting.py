"""`Prefer: wait=N` (RFC 7240, 4.3): hold the answer until the thing has settled."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, TypeVar

import anyio
from fastapi import Depends, Header, Request, Response
from starlette.concurrency import run_in_threadpool

MAX_WAIT_S = 60
POLL_S = 0.2
_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?=$|[,;])", re.IGNORECASE)

Document = TypeVar("Document")


class Wait:
    """How long a client is ready to wait; 0 when it did not say so."""

    def __init__(self, request: Request, response: Response) -> None:
        found = _WAIT.search(", ".join(request.headers.getlist("prefer")))
        self.seconds = min(int(found.group(1)), MAX_WAIT_S) if found else 0
        self.applied = {"Preference-Applied": f"wait={self.seconds}"} if found else {}
        response.headers.update(self.applied)
        self._request = request

    async def until(
        self, read: Callable[[], Document], settled: Callable[[Document], bool]
    ) -> Document:
        """Call `read` in a thread until `settled`, the time is up or the client has gone."""
        deadline = anyio.current_time() + self.seconds
        while True:
            document = await run_in_threadpool(read)
            if settled(document) or anyio.current_time() + POLL_S > deadline:
                return document
            if await self._request.is_disconnected():
                return document
            await pause(POLL_S)


async def pause(seconds: float) -> None:
    """Sleep between two looks at the database."""
    await anyio.sleep(seconds)


async def waiting(
    request: Request,
    response: Response,
    _prefer: Annotated[  # for the description; `Wait` reads every such header there is
        str | None,
        Header(
            alias="Prefer",
            description=f"`wait=N` holds the answer for up to N seconds, at most {MAX_WAIT_S}",
            examples=["wait=20"],
        ),
    ] = None,
) -> Wait:
    """Return how long the client of a request is ready to wait (no thread is needed for it)."""
    return Wait(request, response)


WaitDep = Annotated[Wait, Depends(waiting)]
