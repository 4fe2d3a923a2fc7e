"""Exit codes: what a script can rely on."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

import typer
from rich.console import Console

from cstar_client.documents import Job
from cstar_client.errors import (
    ApiError,
    CstarError,
    JobCancelled,
    JobFailed,
    Rejected,
    Timeout,
)


class Exit(IntEnum):
    """How a command ends."""

    OK = 0
    ERROR = 1
    USAGE = 2
    JOB_FAILED = 3
    TARGETS_MISSED = 4
    JOB_CANCELLED = 5
    TIMEOUT = 6
    INTERRUPTED = 130


def of_job(job: Job) -> Exit:
    """Return the exit code for a job that has ended."""
    if job["status"] == "cancelled":
        return Exit.JOB_CANCELLED
    if job["status"] != "succeeded":
        return Exit.JOB_FAILED
    targets = (job["result"] or {}).get("targets", [])
    met = all(target["outcome"] == "met" for target in targets)
    return Exit.OK if met else Exit.TARGETS_MISSED


@contextmanager
def errors_told(console: Console, *, as_json: bool) -> Iterator[None]:
    """Print an error on stderr (with `--json` a document on stdout too) and leave with its code."""
    try:
        yield
    except BrokenPipeError:
        sys.stderr.close()  # whoever read the output has enough
        raise typer.Exit(Exit.OK) from None
    except (CstarError, OSError) as error:  # OSError: a file here cannot be read or written
        for text in _lines(error):
            console.print(text, highlight=False, markup=False, soft_wrap=True)
        if as_json:
            print(json.dumps({"error": _document(error)}))
        raise typer.Exit(_code(error)) from error


def _code(error: Exception) -> Exit:
    if isinstance(error, JobCancelled):
        return Exit.JOB_CANCELLED
    if isinstance(error, JobFailed):
        return Exit.JOB_FAILED
    return Exit.TIMEOUT if isinstance(error, Timeout) else Exit.ERROR


def _lines(error: Exception) -> Iterator[str]:
    yield f"error: {error}"
    if isinstance(error, ApiError):
        for fault in error.problem.get("errors", []):
            where = fault.get("pointer") or fault.get("parameter") or "the body"
            yield f"  {where}: {fault['detail']}"
        if error.request_id:
            yield f"  request {error.request_id}"


def _document(error: Exception) -> Mapping[str, Any]:
    if isinstance(error, ApiError):
        return error.problem
    if isinstance(error, Rejected):
        return {"code": "rejected", "detail": str(error), "reasons": error.reasons}
    if isinstance(error, JobFailed):
        return {"code": error.job["status"], "detail": str(error), "job": error.job}
    return {"code": type(error).__name__, "detail": str(error)}
