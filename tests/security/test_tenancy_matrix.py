"""Every route with every kind of key: who may not, gets nothing, and learns nothing.

The routes are those of the OpenAPI document. One that this test cannot fill fails it: add what it
needs to `objects.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi import FastAPI

from api.main import app as described
from store.blobs import BlobStore
from store.keys import create_tenant, issue, revoke, tokens
from store.tables import ApiKey
from tests.api.conftest import SECRET, client_of
from tests.api.world import World
from tests.security.objects import BODIES, PLAIN, QUERY, make_things, upload

OPEN = {"/healthz", "/metrics", "/readyz", "/version", "/errors", "/errors/{code}"}
OF_NOBODY = {"/v1/architectures", "/v1/workers"}  # the same for all
DOCUMENT = described.openapi()


@dataclass(frozen=True)
class Operation:
    """An operation of the document, and how to fill its places."""

    method: str
    path: str
    name: str
    query: tuple[str, ...] = ()  # names of its query parameters
    needed: tuple[str, ...] = ()  # those that are required
    body_names: frozenset[str] = field(default_factory=frozenset)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def ask(self, client: Any, things: dict[str, str], *, naming: bool = False) -> Any:
        """Send it; `naming`: query and body name things of `things` as well."""
        query = {name: QUERY[name] for name in self.needed}
        body = None
        if naming:
            query |= {name: things[name] for name in self.query if name in things}
            body = BODIES[self.name](things) if self.name in BODIES else None
        return client.request(
            self.method, self.path.format(**PLAIN, **things), params=query, json=body
        )


def _operation(method: str, path: str, described: dict[str, Any]) -> Operation:
    query = [one for one in described.get("parameters", ()) if one["in"] == "query"]
    return Operation(
        method=method.upper(),
        path=path,
        name=described["operationId"],
        query=tuple(one["name"] for one in query),
        needed=tuple(one["name"] for one in query if one.get("required")),
        body_names=frozenset(_body_names(described)),
    )


def _body_names(described: dict[str, Any]) -> Iterator[str]:
    content = described.get("requestBody", {}).get("content", {})
    schema = str(content.get("application/json", {}).get("schema", {}))
    for name in re.findall(r"#/components/schemas/(\w+)", schema):
        yield from DOCUMENT["components"]["schemas"][name].get("properties", {})


OPERATIONS = [
    _operation(method, path, described)
    for path, methods in DOCUMENT["paths"].items()
    for method, described in methods.items()
    if path not in OPEN
]
every_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=str)


@dataclass(frozen=True)
class Tenant:
    """A tenant with a key that may do everything."""

    world: World
    client: Any

    def key(self, **limits: Any) -> tuple[str, str]:
        """Make another key; returns its id and text."""
        with self.world.database.writing() as session:
            made = {"tenant_id": self.world.tenant_id, "name": "x", "secret_key": SECRET}
            row, key = issue(session, **made, **limits)
        return row.id, key


def _tenant(service: FastAPI, blobs: BlobStore, name: str) -> Tenant:
    database = service.state.services.database
    with database.writing() as session:
        tenant_id = create_tenant(session, name).id
        _, key = issue(session, tenant_id=tenant_id, name="first", secret_key=SECRET)
    client = client_of(service, {"Authorization": f"Bearer {key}"})
    return Tenant(World(database, blobs, tenant_id), client)


@pytest.fixture(scope="module")
def owner(service: FastAPI, blobs: BlobStore) -> Tenant:
    return _tenant(service, blobs, "owner")


@pytest.fixture(scope="module")
def things(owner: Tenant) -> dict[str, str]:
    """One of everything, of the owner."""
    return make_things(owner.client, owner.world)


@pytest.fixture(scope="module")
def stranger(service: FastAPI, blobs: BlobStore) -> Tenant:
    return _tenant(service, blobs, "stranger")


@pytest.fixture(scope="module")
def refused(owner: Tenant) -> dict[str, str | None]:
    """What is no good key of the owner, by what is wrong with it."""
    revoked_id, revoked = owner.key()
    with owner.world.database.writing() as session:
        revoke(session, session.get_one(ApiKey, revoked_id))
    good = owner.key()[1]
    return {
        "missing": None,
        "malformed": good[:-1] + ("0" if good[-1] != "0" else "1"),
        "unknown": tokens.new_key(),
        "revoked": revoked,
        "expired": owner.key(lifetime_s=0.0)[1],
        "limited": owner.key(scopes=["nothing:read"])[1],
    }


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ("missing", 401),
        ("malformed", 401),
        ("unknown", 401),
        ("revoked", 401),
        ("expired", 401),
        ("limited", 403),
    ],
)
@every_operation
def test_a_key_that_may_not_is_refused(
    *,
    service: FastAPI,
    things: dict[str, str],
    refused: dict[str, str | None],
    operation: Operation,
    wrong: str,
    status: int,
) -> None:
    key = refused[wrong]
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    answer = operation.ask(client_of(service, headers), things, naming=True)
    assert answer.status_code == status
    challenge = answer.headers["www-authenticate"]
    assert challenge.startswith("Bearer realm=")
    error = {"missing": "", "limited": 'error="insufficient_scope"'}
    assert error.get(wrong, 'error="invalid_token"') in challenge
    if operation.method != "HEAD":
        expected = "insufficient_scope" if status == 403 else "unauthenticated"
        assert answer.json()["code"] == expected


@every_operation
def test_a_stranger_finds_and_learns_nothing(
    stranger: Tenant, owner: Tenant, things: dict[str, str], operation: Operation
) -> None:
    answer = operation.ask(stranger.client, things, naming=True)
    if "{" in operation.path or operation.name in BODIES:
        assert answer.status_code == 404
    elif operation.method == "GET" and operation.path not in OF_NOBODY:
        assert _of_others(answer.json(), stranger) == []
    named = {value for value in things.values() if value in str(answer.request.url)}
    sent = (answer.request.content or b"").decode("latin-1")
    told = {value for value in things.values() if value in answer.text and value not in sent}
    assert told <= named
    assert owner.world.tenant_id not in answer.text


def _of_others(document: dict[str, Any], stranger: Tenant) -> list[Any]:
    """Return the rows of a list that the stranger has not made."""
    own = {row["id"] for row in stranger.client.get("/v1/api-keys").json()["data"]}
    return [row for row in document.get("data", []) if row["id"] not in own]


@every_operation
def test_the_owner_finds_all_that_is_there(owner: Tenant, operation: Operation) -> None:
    fresh = make_things(owner.client, owner.world)  # the last one may be gone by now
    answer = operation.ask(owner.client, fresh, naming=True)
    assert answer.status_code not in {401, 403, 404, 500}, answer.text


@every_operation
def test_a_body_that_can_name_something_is_tried(operation: Operation) -> None:
    names = {name for name in operation.body_names if name.endswith(("_id", "_ids"))}
    assert not names or operation.name in BODIES, f"add {operation.name} to BODIES"


def test_a_list_has_the_owners_things(owner: Tenant, things: dict[str, str]) -> None:
    for path in ("/v1/files", "/v1/models", "/v1/datasets", "/v1/plans", "/v1/jobs"):
        assert owner.client.get(path).json()["data"], path


def test_the_same_bytes_of_two_tenants_are_two_files(owner: Tenant, stranger: Tenant) -> None:
    mine, theirs = upload(owner.client), upload(stranger.client)
    assert mine != theirs
    assert stranger.client.get(f"/v1/files/{mine}").status_code == 404
    assert stranger.client.get(f"/v1/files/{theirs}").status_code == 200


@pytest.mark.parametrize("path", sorted(OPEN))
def test_what_is_of_no_tenant_needs_no_key(service: FastAPI, path: str) -> None:
    assert client_of(service, {}).get(path.format(code="not_found")).status_code == 200
