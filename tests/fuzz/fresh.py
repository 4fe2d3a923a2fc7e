"""What a request uses up, made anew for it: else such a request would be accepted once a run.

Each maker sends what a client would send first, and returns what the request is to be about. What
takes a worker (a model, a data set) lies ready in `things` instead.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from api.examples import EXAMPLES
from tests.api.world import AS_CHECKPOINT, archive
from tests.fuzz.facts import Facts

IDEMPOTENCY_KEY = "Idempotency-Key"
CONDITIONS = ("If-Match", "Content-Digest", IDEMPOTENCY_KEY)  # of something else
About = dict[str, str | int]
"""Values of path parameters."""


class Fresh:
    """Makes things of the tenant that has the kept ones; `spare` are those that may go."""

    def __init__(self, facts: Facts, spare: Mapping[str, Iterator[str]]) -> None:
        self._spare = spare
        headers = {"Authorization": f"Bearer {facts.key}"}
        self._client = httpx.Client(base_url=f"{facts.url}/v1", headers=headers)
        self._names = facts.examples
        self._numbers = itertools.count()

    def spare(self, name: str) -> About:
        """A thing of which nothing is made, by the name of its path parameter."""
        return {name: next(self._spare[name])}

    def succeeded_job(self) -> About:
        """The job, of those in every state, of which a model may be made; it stays as it is."""
        found = self._client.get("/jobs", params={"state": "succeeded"}).raise_for_status()
        return {"job_id": found.json()["data"][0]["id"]}

    def queued_job(self) -> About:
        """A job that may be paused."""
        return {"job_id": self._made("jobs", "JobRequest")}

    def cancelled_job(self) -> About:
        """A job that may be deleted."""
        return {"job_id": self._after("jobs", "JobRequest", "cancel")}

    def paused_job(self) -> About:
        """A job that may be resumed."""
        return {"job_id": self._after("jobs", "JobRequest", "pause")}

    def cancelled_sweep(self) -> About:
        """A sweep that may be deleted."""
        return {"sweep_id": self._after("sweeps", "SweepRequest", "cancel")}

    def endpoint(self) -> About:
        """An endpoint whose secret was not rotated."""
        return {"endpoint_id": self._made("webhook-endpoints", "WebhookEndpointRequest")}

    def alias(self) -> About:
        """An alias that points to a model."""
        model_id = self._names[EXAMPLES["JobRequest"][0]["model_id"]]
        self._client.put(f"/models/{model_id}/aliases/fuzzed").raise_for_status()
        return {"model_id": model_id, "alias": "fuzzed"}

    def open_upload(self, part_bytes: int) -> About:
        """An upload whose only part has this length; of its bytes nobody has a file."""
        return {"upload_id": self._upload(part_bytes, self._content()), "number": 1}

    def sent_upload(self) -> About:
        """An upload that may be completed."""
        content = self._content()
        upload_id = self._upload(len(content), content)
        self._client.put(f"/uploads/{upload_id}/parts/1", content=content).raise_for_status()
        return {"upload_id": upload_id}

    def _content(self) -> bytes:
        return archive(f"upload {next(self._numbers)}")

    def _upload(self, length: int, content: bytes) -> str:
        announced = {"bytes": length, "sha256": hashlib.sha256(content).hexdigest()}
        return str(self._post("/uploads", {**AS_CHECKPOINT, **announced})["id"])

    def _after(self, collection: str, contract: str, action: str) -> str:
        made = self._made(collection, contract)
        self._post(f"/{collection}/{made}/{action}")
        return made

    def _made(self, collection: str, contract: str) -> str:
        body = {name: self._named(value) for name, value in EXAMPLES[contract][0].items()}
        return str(self._post(f"/{collection}", body)["id"])

    def _named(self, value: Any) -> Any:
        return self._names.get(value, value) if isinstance(value, str) else value

    def _post(self, path: str, body: Any = None) -> dict[str, Any]:
        answer = self._client.post(path, json=body).raise_for_status()
        document: dict[str, Any] = answer.json()
        return document


MAKERS: Mapping[str, Callable[[Fresh, Any], About]] = {
    "DELETE /v1/datasets/{dataset_id}": lambda fresh, _: fresh.spare("dataset_id"),
    "DELETE /v1/files/{file_id}": lambda fresh, _: fresh.spare("file_id"),
    "DELETE /v1/jobs/{job_id}": lambda fresh, _: fresh.cancelled_job(),
    "DELETE /v1/models/{model_id}": lambda fresh, _: fresh.spare("model_id"),
    "DELETE /v1/models/{model_id}/aliases/{alias}": lambda fresh, _: fresh.alias(),
    "DELETE /v1/plans/{plan_id}": lambda fresh, _: fresh.spare("plan_id"),
    "DELETE /v1/sweeps/{sweep_id}": lambda fresh, _: fresh.cancelled_sweep(),
    "POST /v1/jobs/{job_id}/model": lambda fresh, _: fresh.succeeded_job(),
    "POST /v1/jobs/{job_id}/pause": lambda fresh, _: fresh.queued_job(),
    "POST /v1/jobs/{job_id}/resume": lambda fresh, _: fresh.paused_job(),
    "POST /v1/uploads/{upload_id}/complete": lambda fresh, _: fresh.sent_upload(),
    "POST /v1/webhook-endpoints/{endpoint_id}/rotate-secret": lambda fresh, _: fresh.endpoint(),
    # the body is left as it is: Schemathesis takes one that was replaced for invalid
    "PUT /v1/uploads/{upload_id}/parts/{number}": lambda fresh, body: fresh.open_upload(
        max(1, len(getattr(body, "data", body)))
    ),
}


@dataclass
class Turns:
    """Every other request of an operation in `MAKERS` is about what its maker returns.

    Where one request follows another, an idempotency key is used once: the answer that is given
    again may be about what was deleted since.
    """

    fresh: Fresh
    taken: Counter[str] = field(default_factory=Counter)
    keys: itertools.count[int] = field(default_factory=itertools.count)

    def take(self, case: Any) -> None:
        """Change a case that fits the description, if it is its turn."""
        if not case.meta.generation.mode.is_positive:
            return
        if case.meta.phase.name == "stateful" and IDEMPOTENCY_KEY in case.headers:
            case.headers[IDEMPOTENCY_KEY] = f"stateful-{next(self.keys)}"
        label = case.operation.label
        self.taken[label] += 1
        if label in MAKERS and self.taken[label] % 2:
            case.path_parameters.update(MAKERS[label](self.fresh, case.body))
            for name in CONDITIONS:
                case.headers.pop(name, None)
