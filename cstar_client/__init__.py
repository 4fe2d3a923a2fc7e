"""The Python client and the `cstar` command. Talks HTTP only and imports nothing of the service.

`Client` is the SDK; `cstar_client.webhooks.verify` checks a delivery; `cstar_client.cli` is the
command.
"""

from cstar_client.client import Client
from cstar_client.documents import Compression
from cstar_client.errors import (
    ApiError,
    BadRequest,
    ConfigurationError,
    Conflict,
    ConnectionFailed,
    CstarError,
    DigestError,
    Forbidden,
    InvalidRequest,
    InvalidSignature,
    JobCancelled,
    JobFailed,
    NotFound,
    NothingLeft,
    RateLimited,
    Rejected,
    ServerError,
    Timeout,
    Unauthenticated,
)
from cstar_client.retrying import Retries

__all__ = [
    "ApiError",
    "BadRequest",
    "Client",
    "Compression",
    "ConfigurationError",
    "Conflict",
    "ConnectionFailed",
    "CstarError",
    "DigestError",
    "Forbidden",
    "InvalidRequest",
    "InvalidSignature",
    "JobCancelled",
    "JobFailed",
    "NotFound",
    "NothingLeft",
    "RateLimited",
    "Rejected",
    "Retries",
    "ServerError",
    "Timeout",
    "Unauthenticated",
]
