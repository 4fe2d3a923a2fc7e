"""A small typed client of the HTTP API."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypedDict

import httpx

CHUNK_BYTES = 1 << 20
LONG_POLL_S = 20
TERMINAL = {"succeeded", "failed", "cancelled", "paused", "ready", "rejected"}


class Compression(TypedDict, total=False):
    """How small: at least one limit. Milliseconds are for one image on the worker's device."""

    ratio: float
    max_params: int
    max_macs: int
    max_bytes: int
    max_latency_ms: float


class ApiError(Exception):
    """The service refused a request; `problem` is its RFC 9457 document."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(f"{status} {problem.get('code')}: {problem.get('detail')}")
        self.status = status
        self.problem = dict(problem)


class DigestError(Exception):
    """A downloaded file is not the one the service announced."""


class Client:
    """Speaks to one service with one key; use as a context manager."""

    def __init__(self, url: str, api_key: str, *, timeout_s: float = 60.0) -> None:
        self._http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {api_key}"},
            timeout=timeout_s,
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def upload(self, path: Path, *, purpose: Literal["checkpoint", "dataset"]) -> dict[str, Any]:
        """Upload a file with its digest (RFC 9530) and return its document."""
        digest = base64.b64encode(_sha256(path)).decode()
        return self._send(
            "PUT",
            "/v1/files",
            params={"filename": path.name, "purpose": purpose},
            headers={"Content-Digest": f"sha-256=:{digest}:"},
            content=_chunks(path),
        )

    def create(self, resource: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST to `models`, `datasets`, `plans` or `jobs` and return the new document."""
        return self._send("POST", f"/v1/{resource}", json=dict(body))

    def plan(
        self,
        model_id: str,
        compression: Compression,
        *,
        profile: Literal["quick", "paper", "best"] = "quick",
        rank_multiple: int | None = None,
    ) -> dict[str, Any]:
        """Return the ranks that a job would choose among, once they are planned; trains nothing.

        The document is `ready` with `plan` and `candidates`, or `failed` with `error`. Raises
        ApiError, with `best` in its problem, for a target out of reach.
        """
        body = {
            "model_id": model_id,
            "profile": profile,
            "targets": {"compression": compression},
            "options": {"rank_multiple": rank_multiple},
        }
        return self.wait("plans", self.create("plans", body)["id"])

    def evaluate(
        self,
        model_id: str,
        dataset_id: str,
        *,
        epsilon: float,
        norm: Literal["linf", "l2"] = "linf",
        baseline_model_id: str | None = None,
        **fields: Any,
    ) -> dict[str, Any]:
        """Start judging a model as it is, beside a baseline if one is named; returns the job.

        `epsilon` is in [0, 1] pixel space; `fields` are further ones of the body of a job.
        """
        body = {
            "kind": "evaluate",
            "model_id": model_id,
            "dataset_id": dataset_id,
            "baseline_model_id": baseline_model_id,
            "targets": {"robustness": {"norm": norm, "epsilon": epsilon}},
        }
        return self.create("jobs", body | fields)

    def get(self, resource: str, identifier: str, *, wait_s: int = 0) -> dict[str, Any]:
        """Return a document; with `wait_s` only once it is settled or that time is over."""
        headers = {"Prefer": f"wait={wait_s}"} if wait_s else {}
        return self._send("GET", f"/v1/{resource}/{identifier}", headers=headers)

    def wait(self, resource: str, identifier: str) -> dict[str, Any]:
        """Return a document once it is settled (ready, rejected, failed, final or paused)."""
        while True:
            document = self.get(resource, identifier, wait_s=LONG_POLL_S)
            if document["status"] in TERMINAL:
                return document

    def listing(self, path: str, **parameters: Any) -> list[dict[str, Any]]:
        """Return the rows of one page, e.g. of `jobs/{id}/events`."""
        rows = self._send("GET", f"/v1/{path}", params=parameters)["data"]
        return [dict(row) for row in rows]

    def download(self, artifact: Mapping[str, Any], folder: Path) -> Path:
        """Save an artifact under its name; raises DigestError when its bytes are not as listed."""
        path = folder / Path(artifact["filename"]).name
        digest = hashlib.sha256()
        with self._http.stream("GET", f"/v1/artifacts/{artifact['id']}/content") as answer:
            if answer.is_error:
                answer.read()
                raise _error(answer)
            with path.open("wb") as file:
                for chunk in answer.iter_bytes(CHUNK_BYTES):
                    digest.update(chunk)
                    file.write(chunk)
        if digest.hexdigest() != artifact["sha256"]:
            path.unlink()
            raise DigestError(f"{path.name}: the bytes received are not those that were announced")
        return path

    def _send(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        answer = self._http.request(method, path, **arguments)
        if answer.is_error:
            raise _error(answer)
        return dict(answer.json())


def _error(answer: httpx.Response) -> ApiError:
    is_problem = answer.headers.get("content-type", "").startswith("application/problem+json")
    problem = answer.json() if is_problem else {"code": "unknown", "detail": answer.text[:500]}
    return ApiError(answer.status_code, problem)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
