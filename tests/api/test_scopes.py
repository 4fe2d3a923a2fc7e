"""What a key may do, and what it is told when it may not."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts

from api.main import app as described
from store.keys import issue
from tests.api.conftest import SECRET, client_of
from tests.api.world import World


def limited(app: FastAPI, world: World, *scopes: str) -> Any:
    """Return a client with a key of the owner that has these scopes alone."""
    with world.database.writing() as session:
        _, key = issue(
            session, tenant_id=world.tenant_id, name="ci", secret_key=SECRET, scopes=scopes
        )
    return client_of(app, {"Authorization": f"Bearer {key}"})


@pytest.mark.parametrize("asked_before", [False, True])
def test_a_key_may_do_what_its_scopes_say_and_no_more(
    app: FastAPI, world: World, asked_before: bool
) -> None:
    client = limited(app, world, "jobs:read")
    if asked_before:  # a key that is known is checked as well
        assert client.get("/v1/jobs").status_code == 200
    refused = client.post("/v1/jobs", json=world.job_body())
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
    challenge = refused.headers["www-authenticate"]
    assert 'error="insufficient_scope", scope="jobs:write"' in challenge
    assert client.get("/v1/models").status_code == 403
    assert client.get("/v1/jobs").status_code == 200


def test_to_write_is_not_to_read(app: FastAPI, world: World) -> None:
    client = limited(app, world, "jobs:write")
    assert client.post("/v1/jobs", json=world.job_body()).status_code == 202
    assert client.get("/v1/jobs").status_code == 403


def test_to_look_at_the_head_is_to_read(app: FastAPI, world: World) -> None:
    client = limited(app, world, "files:read")
    assert client.head("/v1/files/file_none/content").status_code == 404


def test_every_route_of_tenants_has_one_tag_for_its_scope() -> None:
    for context in iter_route_contexts(described.routes):
        route = context.original_route
        if isinstance(route, APIRoute) and route.path.startswith("/v1"):
            assert len(route.tags) == 1, route.path


def test_every_operation_says_which_scope_it_needs() -> None:
    for path, operations in described.openapi()["paths"].items():
        for method, operation in operations.items():
            if not path.startswith("/v1"):
                continue
            verb = "read" if method in ("get", "head") else "write"
            assert operation["security"] == [{"ApiKey": [f"{operation['tags'][0]}:{verb}"]}]
            assert "insufficient_scope" in operation["responses"]["403"]["description"]
