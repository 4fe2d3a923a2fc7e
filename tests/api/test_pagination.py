"""Keyset pages: every row once, in order, in both directions."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.world import World


@pytest.fixture
def ids(world: World) -> list[str]:
    """Five models, newest first."""
    return sorted((world.model() for _ in range(5)), reverse=True)


def page(client: Any, **query: Any) -> Any:
    return client.get("/v1/models", params=query).json()


def test_pages_forward_have_every_row_once(client: Any, ids: list[str]) -> None:
    seen: list[str] = []
    found = page(client, limit=2)
    while True:
        seen += [model["id"] for model in found["data"]]
        assert (found["first_id"], found["last_id"]) == (
            found["data"][0]["id"],
            found["data"][-1]["id"],
        )
        if not found["has_more"]:
            break
        found = page(client, limit=2, after=found["last_id"])
    assert seen == ids


@pytest.mark.parametrize(
    ("cursor", "expected", "has_more"),
    [
        ({"before": 4}, [2, 3], True),
        ({"before": 2}, [0, 1], False),
        ({"before": 0}, [], False),
        ({"after": 2}, [3, 4], False),
        ({"after": 4}, [], False),
    ],
)
def test_a_page_lies_next_to_its_cursor(
    client: Any, ids: list[str], cursor: dict[str, int], expected: list[int], has_more: bool
) -> None:
    query = {name: ids[place] for name, place in cursor.items()}
    found = page(client, limit=2, **query)
    assert [model["id"] for model in found["data"]] == [ids[place] for place in expected]
    assert found["has_more"] is has_more


def test_a_new_row_moves_no_page(client: Any, ids: list[str], world: World) -> None:
    first = page(client, limit=2)
    world.model()
    second = page(client, limit=2, after=first["last_id"])
    assert [model["id"] for model in second["data"]] == ids[2:4]


def test_an_empty_list_has_no_bounds(client: Any) -> None:
    nothing: dict[str, Any] = {"data": [], "first_id": None, "last_id": None, "has_more": False}
    assert page(client) == nothing


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ({"limit": 101}, "limit"),
        ({"limit": 0}, "limit"),
        ({"after": "a", "before": "b"}, "before"),
        ({"after": "\0"}, "after"),
        ({"after": "x" * 256}, "after"),
    ],
)
def test_a_cursor_that_makes_no_sense_is_refused(
    client: Any, query: dict[str, Any], parameter: str
) -> None:
    problem = page(client, **query)
    assert problem["code"] == "invalid_request"
    assert problem["errors"][0]["parameter"] == parameter
