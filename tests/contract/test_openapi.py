"""What is promised is what is served: the committed documents follow the code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from api.main import app
from api.openapi import render
from api.problem_kinds import KINDS
from store.catalog import architectures
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


def headings(path: Path) -> set[str]:
    return set(re.findall(r"^### `([a-z_]+)`$", path.read_text("utf-8"), re.MULTILINE))


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
