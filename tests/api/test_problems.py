"""Every refusal is a problem document with a code, an id and pointers to what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError

from api.middleware import MAX_JSON_BYTES
from tests.api.world import INPUT, MODEL, TARGETS, World

JOB = {"model_id": "mdl_1", "dataset_id": "dts_1", "targets": TARGETS}


def pointers(response: Any) -> list[str]:
    assert response.status_code == 422
    assert response.json()["code"] == "invalid_request"
    return [fault["pointer"] for fault in response.json()["errors"]]


def test_an_unknown_path_is_a_problem(client: Any) -> None:
    response = client.get("/v1/nothing")
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["type"] == "/errors/not_found"
    assert (problem["status"], problem["title"]) == (404, "Not found")
    assert "/v1/nothing" in problem["detail"]


def test_a_trailing_slash_is_another_path(client: Any) -> None:
    assert client.get("/v1/jobs/", follow_redirects=False).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/files", "GET, HEAD, PUT"),
        ("DELETE", "/v1/files/file_1/content", "GET, HEAD"),
        ("PUT", "/v1/jobs", "GET, HEAD, POST"),
        ("GET", "/v1/jobs/job_1/cancel", "POST"),
        ("PATCH", "/v1/models/mdl_1", "DELETE, GET, HEAD"),
        ("POST", "/healthz", "GET, HEAD"),
    ],
)
def test_a_405_lists_every_method_of_the_path(
    client: Any, method: str, path: str, allowed: str
) -> None:
    response = client.request(method, path)
    assert response.status_code == 405
    assert response.headers["allow"] == allowed
    assert response.json()["code"] == "method_not_allowed"


def test_a_request_id_is_echoed_and_is_in_the_problem(client: Any) -> None:
    response = client.get("/v1/nothing", headers={"X-Request-Id": "build-17.3"})
    assert response.headers["x-request-id"] == "build-17.3"
    assert response.json()["request_id"] == "build-17.3"


@pytest.mark.parametrize("presented", ["a b", "x" * 129, "<script>", ""])
def test_a_strange_request_id_is_replaced(client: Any, presented: str) -> None:
    response = client.get("/healthz", headers={"X-Request-Id": presented})
    assert response.headers["x-request-id"].startswith("req_")


def test_a_failure_tells_its_id_and_nothing_else(
    client: Any, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr(app.state.services.database, "reading", broken)
    response = client.get("/v1/jobs", headers={"X-Request-Id": "failing"})
    assert (response.status_code, response.json()["code"]) == (500, "internal")
    assert response.headers["x-request-id"] == response.json()["request_id"] == "failing"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "hunter2" not in response.text


@pytest.mark.parametrize("error", [OperationalError, InternalError, InterfaceError])
def test_a_database_that_is_down_or_has_left_is_a_503_to_try_again(
    client: Any, app: FastAPI, monkeypatch: pytest.MonkeyPatch, error: type[DBAPIError]
) -> None:
    def down() -> None:
        raise error("SELECT 1", {}, Exception("no route to host 10.0.0.7"))

    monkeypatch.setattr(app.state.services.database, "reading", down)
    response = client.get("/readyz")
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")
    assert "retry-after" in response.headers
    assert "10.0.0.7" not in response.text


@pytest.mark.parametrize(
    ("path", "body", "pointer", "allowed"),
    [
        ("/v1/jobs", JOB | {"model": 1}, "/model", "model_id"),
        (
            "/v1/jobs",
            JOB | {"targets": TARGETS | {"robustnes": {}}},
            "/targets/robustnes",
            "compression, min_clean_accuracy, robustness",
        ),
        (
            "/v1/jobs",
            JOB | {"targets": TARGETS | {"compression": {"ratio": 4, "sparsity": 1}}},
            "/targets/compression/sparsity",
            "max_bytes, max_latency_ms, max_macs, max_params, ratio",
        ),
        ("/v1/models", MODEL | {"file_id": "f", "a/b~c": 1}, "/a~1b~0c", "architecture"),
        (
            "/v1/models",
            MODEL | {"file_id": "f", "architecture": {"name": "x", "args": {}}},
            "/architecture/args",
            "arguments, name",
        ),
    ],
)
def test_an_unknown_field_is_pointed_at_and_the_allowed_ones_named(
    client: Any, path: str, body: Any, pointer: str, allowed: str
) -> None:
    response = client.post(path, json=body)
    assert pointer in pointers(response)
    fault = next(f for f in response.json()["errors"] if f["pointer"] == pointer)
    assert "unknown field" in fault["detail"]
    assert allowed in fault["detail"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"targets": TARGETS, "model_id": "m"}, "/dataset_id"),
        (JOB | {"seed": -1}, "/seed"),
        (JOB | {"targets": TARGETS | {"compression": {}}}, "/targets/compression"),
        (JOB | {"labels": {"team": 7}}, "/labels/team"),
        (JOB | {"evaluation": {"examples": "many"}}, "/evaluation/examples"),
        ([], ""),
        (None, ""),
    ],
)
def test_what_is_wrong_is_pointed_at(client: Any, body: Any, pointer: str) -> None:
    assert pointers(client.post("/v1/jobs", json=body)) == [pointer]


def test_an_element_of_a_list_is_pointed_at(client: Any) -> None:
    body = MODEL | {"file_id": "f", "input": INPUT | {"std": [0.2, -1.0, 0.2]}}
    assert pointers(client.post("/v1/models", json=body)) == ["/input/std/1"]


def test_the_detail_says_what_is_wrong_with_the_first_and_how_many_more(client: Any) -> None:
    detail = client.post("/v1/jobs", json=JOB | {"seed": -1, "priority": 1000}).json()["detail"]
    assert "/seed" in detail
    assert "(and 1 more)" in detail


def test_a_parameter_of_the_query_is_named(client: Any) -> None:
    problem = client.get("/v1/jobs?limit=0").json()
    assert problem["errors"][0]["parameter"] == "limit"


def test_broken_json_says_where(client: Any) -> None:
    headers = {"Content-Type": "application/json"}
    response = client.post("/v1/jobs", content=b'{"model_id": ', headers=headers)
    assert pointers(response) == [""]
    assert "at character 13" in response.json()["errors"][0]["detail"]


@pytest.mark.parametrize("content", [b'{"x": "\xff"}', b"[" + b"9" * 5000 + b"]", b"[" * 100_000])
def test_bytes_that_no_parser_takes_are_a_400(client: Any, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    response = client.post("/v1/jobs", content=content, headers=headers)
    assert (response.status_code, response.json()["code"]) == (400, "bad_request")


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded"])
def test_a_body_that_is_not_json_is_a_415(client: Any, media_type: str) -> None:
    headers = {"Content-Type": media_type}
    response = client.post("/v1/jobs", content=json.dumps(JOB), headers=headers)
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")


def test_a_json_body_has_a_limit(client: Any) -> None:
    response = client.post("/v1/jobs", json={"x": "x" * MAX_JSON_BYTES})
    assert (response.status_code, response.json()["code"]) == (413, "too_large")


def bodies(app: FastAPI) -> list[tuple[str, str]]:
    """Return every operation that takes a body, but those that stream one."""
    found = []
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            content = operation.get("requestBody", {}).get("content", {})
            if "application/json" in content or method == "post":
                found.append((method.upper(), path))
    return found


def test_every_json_body_has_a_limit_also_one_of_unknown_length(client: Any, app: FastAPI) -> None:
    found = bodies(app)
    assert len(found) > 8

    def chunks() -> Iterator[bytes]:
        for _ in range(MAX_JSON_BYTES // 65536 + 1):
            yield b" " * 65536

    for method, path in found:
        headers = {"Content-Type": "application/json"}
        answer = client.request(method, path, content=chunks(), headers=headers)
        if "requestBody" in app.openapi()["paths"][path][method.lower()]:
            assert (answer.status_code, answer.json()["code"]) == (413, "too_large"), path
        else:
            assert answer.status_code in {404, 413}, path  # the body is not looked at


def test_what_announces_too_much_is_refused_before_it_is_read(client: Any, app: FastAPI) -> None:
    read = []

    def never() -> Iterator[bytes]:
        read.append(1)
        yield b"{}"

    headers = {"Content-Type": "application/json", "Content-Length": str(MAX_JSON_BYTES + 1)}
    answer = client.post("/v1/jobs", content=never(), headers=headers)
    assert read == []
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_options_tells_the_methods(client: Any) -> None:
    answer = client.options("/v1/jobs")
    assert (answer.status_code, answer.headers["allow"]) == (204, "GET, HEAD, POST")
    assert client.options("/v1/nothing").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/healthz", 200),
        ("GET", "/v1/nothing", 404),
        ("DELETE", "/v1/jobs", 405),
        ("POST", "/v1/jobs", 415),
        ("GET", "/v1/jobs?limit=0", 422),
        ("GET", "/errors", 200),
    ],
)
def test_every_answer_has_an_id_and_is_data_to_a_browser(
    client: Any, method: str, path: str, status: int
) -> None:
    answer = client.request(method, path, content=b"x" if method == "POST" else None)
    assert answer.status_code == status
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("text", ["\ud800", "nul\x00"])
def test_text_that_no_database_takes_is_refused(client: Any, world: World, text: str) -> None:
    content = json.dumps(MODEL | {"file_id": "f", "name": text}).encode()
    headers = {"Content-Type": "application/json"}
    assert pointers(client.post("/v1/models", content=content, headers=headers)) == ["/name"]
