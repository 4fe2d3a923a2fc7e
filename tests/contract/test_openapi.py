"""What is promised is what is served: the committed documents follow the code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from api.keys.schemas import KeyRequest
from api.main import app
from api.openapi import render
from api.problem_kinds import KINDS
from api.problem_pages import texts
from api.uploads.schemas import UploadRequest
from api.webhooks.schemas import WebhookEndpointRequest
from store.catalog import architectures
from store.contracts import DatasetRequest, JobRequest, ModelRequest, PlanRequest, SweepRequest
from store.states import ErrorCode

ROOT = Path(__file__).parents[2]


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    paths = app.openapi()["paths"]
    return [(path, method, one) for path, all_ in paths.items() for method, one in all_.items()]


def test_the_committed_description_is_that_of_the_code() -> None:
    committed = (ROOT / "openapi.json").read_text("utf-8")
    assert committed == render(app.openapi()), "run `python -m api.openapi` and look at the diff"


def test_operation_ids_are_chosen_and_unique() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)+", name) for name in names)


def test_every_reference_of_the_description_leads_somewhere() -> None:
    document = app.openapi()
    for name in re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)):
        assert name in document["components"]["schemas"]


def test_every_refusal_is_described_as_a_problem() -> None:
    for _, _, operation in operations():
        for status, response in operation["responses"].items():
            if status == "default" or int(status) >= 400:
                assert list(response["content"]) == ["application/problem+json"]


def test_every_operation_has_one_tag_and_says_what_it_does() -> None:
    for path, method, operation in operations():
        assert len(operation["tags"]) == 1, (method, path)
        assert operation["summary"], (method, path)
        assert operation["description"], (method, path)


def test_what_needs_a_key_says_what_happens_without_a_good_one() -> None:
    keyed = [operation for path, _, operation in operations() if path.startswith("/v1/")]
    assert keyed
    for operation in keyed:
        assert list(operation["security"][0]) == ["ApiKey"]
        assert {"401", "403"} <= set(operation["responses"]), operation["operationId"]
        challenge = operation["responses"]["401"]["headers"]["WWW-Authenticate"]
        assert challenge == {"$ref": "#/components/headers/WWW-Authenticate"}


def test_what_reads_a_body_says_how_a_bad_one_is_refused() -> None:
    reading = [operation for _, _, operation in operations() if "requestBody" in operation]
    assert reading
    for operation in reading:
        assert {"400", "415", "422"} <= set(operation["responses"]), operation["operationId"]


def _texts(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield the schema of every text within a body, also those that name the members of a map."""
    if isinstance(schema, list):
        for one in schema:
            yield from _texts(one)
    if not isinstance(schema, dict):
        return
    if "$ref" in schema:
        yield from _texts(app.openapi()["components"]["schemas"][schema["$ref"].split("/")[-1]])
    if schema.get("type") == "string":
        yield schema
    if "additionalProperties" in schema and schema["additionalProperties"] is not False:
        yield schema.get("propertyNames", {"type": "string"})
    for name in ("properties", "items", "prefixItems", "anyOf", "oneOf", "additionalProperties"):
        inside = schema.get(name)
        yield from _texts(list(inside.values()) if name == "properties" and inside else inside)


def test_every_text_of_a_body_refuses_what_the_database_cannot_hold() -> None:
    """PostgreSQL reads JSON again, so that one NUL among labels fails every query of labels."""
    bodies = [
        operation["requestBody"]["content"]
        for *_, operation in operations()
        if "requestBody" in operation
    ]
    found = [
        text for body in bodies for text in _texts(body.get("application/json", {}).get("schema"))
    ]
    assert found
    for text in found:
        assert {"pattern", "enum", "const"} & set(text), text


def test_what_takes_parameters_says_how_bad_ones_are_refused() -> None:
    for _, _, operation in operations():
        places = {parameter["in"] for parameter in operation.get("parameters", ())}
        if "query" in places:
            assert "422" in operation["responses"], operation["operationId"]


def test_no_parameter_can_be_null() -> None:
    for _, _, operation in operations():
        for parameter in operation.get("parameters", ()):
            assert '"null"' not in json.dumps(parameter["schema"]), operation["operationId"]


CONTRACTS = [
    ModelRequest,
    DatasetRequest,
    PlanRequest,
    JobRequest,
    SweepRequest,
    UploadRequest,
    WebhookEndpointRequest,
    KeyRequest,
]


def test_every_body_that_is_needed_is_shown() -> None:
    bodies = [operation.get("requestBody", {}) for _, _, operation in operations()]
    needed = [body["content"] for body in bodies if body.get("required")]
    schemas = [content["application/json"] for content in needed if "application/json" in content]
    names = {one["schema"]["$ref"].rpartition("/")[2] for one in schemas}
    assert names - {"WebhookEndpointChanges"} == {contract.__name__ for contract in CONTRACTS}


@pytest.mark.parametrize("contract", CONTRACTS)
def test_the_examples_of_a_body_are_accepted(contract: type[BaseModel]) -> None:
    schema = app.openapi()["components"]["schemas"][contract.__name__]
    assert schema["examples"]
    for example in schema["examples"]:
        contract.model_validate(example)


def headings(path: Path) -> set[str]:
    return set(re.findall(r"^### `([a-z_]+)`$", path.read_text("utf-8"), re.MULTILINE))


def test_the_pages_of_the_service_are_what_the_guide_says() -> None:
    found = texts.explanations((ROOT / "docs" / "errors.md").read_text("utf-8"))
    assert texts.kept() == found, "run python -m api.problem_pages.texts"
    assert {one.code for one in found} >= set(KINDS) | {code.value for code in ErrorCode}


def test_every_code_is_explained_under_a_heading_of_its_own() -> None:
    expected = set(KINDS) | {code.value for code in ErrorCode}
    assert headings(ROOT / "docs" / "errors.md") == expected


@pytest.mark.parametrize("path", sorted({path for path, _, _ in operations()}))
def test_every_path_is_in_the_guide(path: str) -> None:
    guide = (ROOT / "docs" / "api.md").read_text("utf-8")
    assert re.sub(r"\{[a-z_]+_id\}", "{id}", path) in guide


def test_the_committed_architectures_are_those_of_the_registry() -> None:
    from cstar_core.architectures.catalog import catalog

    assert [vars(known) for known in architectures()] == catalog()
