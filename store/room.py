"""Telling a disk that is full from everything else that can go wrong."""

from __future__ import annotations

import errno
import re

from sqlalchemy.exc import DBAPIError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# How the object store, SQLite, and S3 servers that run out of disk say it.
_WORDS = re.compile(
    r"\(os error (28|122)\)|database or disk is full|No space left on device|XMinioStorageFull"
)
_POSTGRESQL_DISK_FULL = "53100"


def is_full(error: BaseException) -> bool:
    """Say whether an error means that a disk, a quota or a bucket has no room left."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        return is_full(error.orig)
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    if getattr(error, "sqlstate", None) == _POSTGRESQL_DISK_FULL:
        return True
    return _WORDS.search(str(error)) is not None
