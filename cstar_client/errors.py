"""What can go wrong, as exceptions: the service's refusals by status, and what the client finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class CstarError(Exception):
    """Base of all errors of this package."""


class ConfigurationError(CstarError):
    """It is not known where the service is, or with which key."""


class ConnectionFailed(CstarError):
    """No answer came; `sent` says whether the service may have seen the request."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class Timeout(CstarError, TimeoutError):
    """What was waited for did not happen in time; it goes on all the same."""


class DigestError(CstarError):
    """A downloaded file is not the one the service announced."""


class NothingLeft(CstarError):
    """A job has no artifacts, because it has not ended."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self.job = dict(job)
        super().__init__(
            f"{job['id']} is {job['status']} and has left nothing yet; wait for its end: "
            f"cstar jobs watch {job['id']}"
        )


class InvalidSignature(CstarError):
    """A webhook's delivery is not from who holds the secret, or it is too old."""


class Rejected(CstarError):
    """A model or data set was validated and refused; `reasons` say why."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = dict(document)
        self.reasons: Sequence[Mapping[str, Any]] = document["reasons"]
        why = "; ".join(f"{reason['code']}: {reason['detail']}" for reason in self.reasons)
        super().__init__(f"{document['id']} ({document['name']}) was rejected: {why}")


class JobFailed(CstarError):
    """A job or plan ended without a result; `job` is its document."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self.job = dict(job)
        error = job.get("error") or {}
        why = f": {error['code']}: {error['message']}" if error else ""
        super().__init__(f"{job['id']} {job['status']}{why}")


class JobCancelled(JobFailed):
    """A job was cancelled before it had a result."""


class ApiError(CstarError):
    """The service refused a request; `problem` is its document (RFC 9457).

    `code` is stable (docs/errors.md); quote `request_id` when asking for help.
    """

    def __init__(
        self, status: int, problem: Mapping[str, Any], *, retry_after_s: float | None = None
    ) -> None:
        self.status = status
        self.problem = dict(problem)
        self.code = str(problem.get("code", "unknown"))
        self.request_id: str | None = problem.get("request_id")
        self.retry_after_s = retry_after_s
        super().__init__(f"{status} {self.code}: {problem.get('detail') or problem.get('title')}")


class BadRequest(ApiError):
    """400: the request cannot be read."""


class Unauthenticated(ApiError):
    """401: the key is missing, unknown, expired or revoked."""


class Forbidden(ApiError):
    """403: the key may not do this, or a quota is used up (`code` tells)."""


class NotFound(ApiError):
    """404: no such thing among what the key may see."""


class Conflict(ApiError):
    """409 or 412: the state of things does not allow this now."""


class InvalidRequest(ApiError):
    """422: read, and not possible; `problem["errors"]` points at the fields."""


class RateLimited(ApiError):
    """429: too many requests in this minute."""


class ServerError(ApiError):
    """5xx: the service failed."""


_BY_STATUS: Mapping[int, type[ApiError]] = {
    400: BadRequest,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    412: Conflict,
    422: InvalidRequest,
    429: RateLimited,
}
FIRST_SERVER_ERROR = 500


def api_error(
    status: int, problem: Mapping[str, Any], *, retry_after_s: float | None = None
) -> ApiError:
    """Return the error of the class that belongs to a status."""
    default = ServerError if status >= FIRST_SERVER_ERROR else ApiError
    return _BY_STATUS.get(status, default)(status, problem, retry_after_s=retry_after_s)
