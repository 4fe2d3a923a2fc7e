"""For whom this thread or task works: the request, job, attempt and worker that logs name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

_ids: ContextVar[Mapping[str, str]] = ContextVar("cstar_ids", default={})  # noqa: B039 (read only)


def ids() -> dict[str, str]:
    """Return the ids of what is being worked for: `request_id`, `job_id`, `attempt`, ..."""
    return dict(_ids.get())


@contextmanager
def working_for(**more: object) -> Iterator[None]:
    """Add ids for the duration of a block; None leaves one out."""
    given = {name: str(value) for name, value in more.items() if value is not None}
    token = _ids.set({**_ids.get(), **given})
    try:
        yield
    finally:
        _ids.reset(token)
