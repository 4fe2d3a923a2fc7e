"""Problem documents (RFC 9457): what every refusal and failure is answered with."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from api.errors import DomainError, Fault
from api.methods import allowed_methods
from api.middleware import request_id_of
from api.problem_kinds import CODE_OF_STATUS, KINDS
from api.validation import faults_of, is_unparsed
from store.blobs import BlobGone
from store.database import AWAY
from store.room import is_full

MEDIA_TYPE = "application/problem+json"
PROBLEM_CONTENT = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
_log = logging.getLogger(__name__)


class FaultDocument(BaseModel):
    """One thing to mend: `pointer` (RFC 6901) into the body, or the `parameter` at fault."""

    detail: str
    pointer: str | None = None
    parameter: str | None = None


class Problem(BaseModel):
    """RFC 9457 problem document; `code` is stable, `detail` says what to do next."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["/errors/target_infeasible"])
    title: str
    status: int
    detail: str
    code: str = Field(examples=["target_infeasible"])
    request_id: str
    errors: list[FaultDocument] = []


class HttpError(DomainError):
    """A refusal that only exists in HTTP, with the headers that go with it."""

    def __init__(self, code: str, detail: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.headers = dict(headers or {})


def problem_responses(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of an operation in OpenAPI: one for each status of `codes`."""
    statuses: dict[int | str, list[str]] = {}
    for code in codes:
        statuses.setdefault(KINDS[code].status, []).append(f"`{code}`")
    return {
        status: {"description": "Problem: " + ", ".join(listed), "content": PROBLEM_CONTENT}
        for status, listed in statuses.items()
    }


def register(app: FastAPI) -> None:
    """Answer every exception with a problem document."""
    app.add_exception_handler(DomainError, _on_domain_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    for away in AWAY:
        app.add_exception_handler(away, _on_unavailable)
    app.add_exception_handler(BlobGone, _on_blob_gone)
    app.add_exception_handler(Exception, _on_failure)


def respond(
    request: Request,
    code: str,
    detail: str,
    *,
    faults: Sequence[Fault] = (),
    members: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return the problem document of `code`; `members` are added to it at its top level.

    None of them takes the place of a member that RFC 9457 defines.
    """
    kind = KINDS[code]
    document = {
        **(members or {}),
        "type": f"/errors/{code}",
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "code": code,
        "request_id": request_id_of(request.scope),
        "errors": [_plain(fault) for fault in faults],
    }
    return JSONResponse(
        document,
        status_code=kind.status,
        media_type=MEDIA_TYPE,
        headers={**kind.headers, **(headers or {})},
    )


def _plain(fault: Fault) -> dict[str, str]:
    return {name: value for name, value in asdict(fault).items() if value is not None}


def _on_domain_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, DomainError)
    headers = error.headers if isinstance(error, HttpError) else None
    return respond(
        request,
        error.code,
        error.detail,
        faults=error.faults,
        members=error.members,
        headers=headers,
    )


def _on_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    if is_unparsed(error):
        detail = "Send the body as JSON, with Content-Type: application/json."
        return respond(request, "unsupported_media_type", detail)
    faults = faults_of(error, request.scope.get("route"))
    where = faults[0].pointer if faults[0].pointer is not None else faults[0].parameter
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    detail = f"{where or 'body'}: {faults[0].detail}{more}"
    return respond(request, "invalid_request", detail, faults=faults)


def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = CODE_OF_STATUS.get(error.status_code, "bad_request")
    if code == "not_found":
        return respond(request, code, f"There is nothing at {request.url.path}.")
    if code == "method_not_allowed":
        allowed = ", ".join(allowed_methods(request))
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"Allow": allowed})
        detail = f"{request.method} is not allowed here; allowed: {allowed}."
        return respond(request, code, detail, headers={"Allow": allowed})
    return respond(request, code, str(error.detail), headers=error.headers)


def _on_disconnect(request: Request, _error: Exception) -> Response:
    return respond(request, "bad_request", "The body ended early.")  # nobody is left to read it


def _on_unavailable(request: Request, error: Exception) -> Response:
    if is_full(error):
        return _on_full(request, error)
    _log.error("request %s: database: %s", request_id_of(request.scope), error)
    return respond(request, "unavailable", "Try again in a few seconds.")


def _on_full(request: Request, error: Exception) -> Response:
    _log.error("request %s: no room: %s", request_id_of(request.scope), error)
    detail = (
        "Nothing was kept. Send the request again when the operator has made room; what was "
        "stored before is safe."
    )
    return respond(request, "storage_full", detail)


def _on_blob_gone(request: Request, _error: Exception) -> Response:
    detail = "The same bytes were being removed as no longer needed; send the file again."
    return respond(request, "unavailable", detail)


def _on_failure(request: Request, _error: Exception) -> Response:
    request_id = request_id_of(request.scope)
    _log.error("request %s failed", request_id)  # the server logs the traceback itself
    detail = f"The request was not carried out. Report request id {request_id} to the operator."
    return respond(request, "internal", detail)
