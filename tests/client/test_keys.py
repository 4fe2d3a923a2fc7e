"""Keys in the SDK and the command."""

from __future__ import annotations

import json

import pytest

from cstar_client import Client, Forbidden, Unauthenticated
from tests.api.world import World
from tests.client.conftest import Access, Run


def test_a_key_of_some_scopes_does_what_they_say(client: Client, access: Access) -> None:
    made = client.keys.create("ci", scopes=["jobs:read"], expires_in_s=3600)
    assert made["key"]

    with Client(access.url, made["key"]) as reader:
        assert list(reader.jobs.list()) == []
        with pytest.raises(Forbidden):
            list(reader.models.list())


def test_a_key_is_rotated_and_revoked(client: Client, access: Access) -> None:
    old = client.keys.create("ci", scopes=["jobs:read"])
    new = client.keys.rotate(old, overlap_s=0)
    assert client.keys.get(new)["scopes"] == ["jobs:read"]
    client.keys.revoke(new)

    for key in (old["key"], new["key"]):
        with Client(access.url, key or "") as ended, pytest.raises(Unauthenticated):
            list(ended.jobs.list())


def test_the_command_prints_a_new_key_once_and_lists_it_without(
    cstar: Run, client: Client, world: World
) -> None:
    made = cstar("keys", "create", "ci", "--scope", "jobs:read", "--days", "2")
    listed = json.loads(cstar("keys", "ls", "--json").stdout)

    assert made.stdout.startswith("cst_")
    (ours,) = [one for one in listed if one["name"] == "ci"]
    assert "key" not in ours
    assert cstar("keys", "revoke", ours["id"]).exit_code == 0
    assert client.keys.get(ours)["revoked_at"]
