"""Web pages may call the API only from origins that the operator names."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import ValidationError

from store.settings import Settings

PAGE = {"Origin": "https://console.example"}
PREFLIGHT = PAGE | {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,idempotency-key",
}


def test_no_page_may_call_by_default(client: Any) -> None:
    for answer in (
        client.get("/v1/jobs", headers=PAGE),
        client.options("/v1/jobs", headers=PREFLIGHT),
    ):
        assert not any(name.startswith("access-control") for name in answer.headers)


class TestNamed:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        origins = "https://console.example, http://127.0.0.1:5173"
        return settings.model_copy(update={"cors_origins": origins})

    def test_a_named_page_may_call_and_read_the_headers(self, client: Any) -> None:
        answer = client.get("/v1/jobs", headers=PAGE)
        assert answer.headers["access-control-allow-origin"] == PAGE["Origin"]
        assert "access-control-allow-credentials" not in answer.headers
        exposed = answer.headers["access-control-expose-headers"]
        for name in ("ETag", "Location", "RateLimit", "Retry-After", "X-Request-Id"):
            assert name in exposed
        assert "Origin" in answer.headers["vary"]

    def test_a_named_page_may_send_keys(self, anonymous: Any) -> None:
        answer = anonymous.options("/v1/jobs", headers=PREFLIGHT)
        assert answer.status_code == 200
        assert "POST" in answer.headers["access-control-allow-methods"]
        allowed = answer.headers["access-control-allow-headers"].lower()
        assert "authorization" in allowed
        assert "idempotency-key" in allowed
        assert answer.headers["x-request-id"]

    def test_another_page_may_not(self, client: Any) -> None:
        answer = client.get("/v1/jobs", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in answer.headers

    @pytest.mark.parametrize(
        ("changed", "wrong"),
        [
            ({"Origin": "https://evil.example"}, "origin"),
            ({"Access-Control-Request-Method": "TRACE"}, "method"),
        ],
    )
    def test_a_preflight_is_refused_with_a_problem(
        self, anonymous: Any, changed: dict[str, str], wrong: str
    ) -> None:
        answer = anonymous.options("/v1/jobs", headers=PREFLIGHT | changed)
        assert answer.headers["content-type"] == "application/problem+json"
        assert int(answer.headers["content-length"]) == len(answer.content)
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (403, "cross_origin_refused")
        assert f"CORS {wrong}." in problem["detail"]
        assert problem["request_id"] == answer.headers["x-request-id"]
        allowed = answer.headers.get("access-control-allow-origin")
        assert allowed == (None if wrong == "origin" else PAGE["Origin"])
        assert "Origin" in answer.headers["vary"]

    def test_a_failure_can_be_read_too(
        self, client: Any, app: FastAPI, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken() -> None:
            raise RuntimeError

        monkeypatch.setattr(app.state.services.database, "reading", broken)
        answer = client.get("/v1/jobs", headers=PAGE)
        assert answer.status_code == 500
        assert answer.headers["access-control-allow-origin"] == PAGE["Origin"]


@pytest.mark.parametrize("origins", ["*", "console.example", "https://a.example/path", "null"])
def test_what_is_no_origin_is_refused_at_the_start(origins: str) -> None:
    with pytest.raises(ValidationError, match="cors_origins"):
        Settings(cors_origins=origins)
