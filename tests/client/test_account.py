"""Usage, audit and architectures in the SDK and the command."""

from __future__ import annotations

import json

from cstar_client import Client
from store.catalog import architectures
from tests.api.world import World
from tests.client.conftest import Access, Run


def test_usage_tells_what_there_is_and_its_limits(client: Client, world: World) -> None:
    world.model()
    usage = client.usage.get()

    assert usage["models"]["used"] == 1
    assert usage["keys"] == {"used": 1, "limit": usage["keys"]["limit"]}


def test_the_command_shows_usage_and_the_limits(cstar: Run, world: World, client: Client) -> None:
    world.model()
    shown = cstar("usage")

    limit = client.usage.get()["models"]["limit"]
    assert shown.exit_code == 0, shown.output
    assert f"models: 1 of {limit:,}\n" in shown.stdout
    assert json.loads(cstar("usage", "--json").stdout)["models"] == {"used": 1, "limit": limit}


def test_changes_are_listed_by_kind_thing_and_key(client: Client, access: Access) -> None:
    made = client.keys.create("ci", scopes=["keys:write", "jobs:read"])
    with Client(access.url, made["key"] or "") as other:
        other.keys.create("of ci", scopes=["jobs:read"])
    client.keys.revoke(made)

    def actions(**which: str) -> list[str]:
        return [event["action"] for event in client.audit.list(**which)]

    assert actions() == ["revoke_api_key", "create_api_key", "create_api_key"]
    assert actions(action="revoke_api_key") == ["revoke_api_key"]
    assert actions(changed=made["id"]) == ["revoke_api_key", "create_api_key"]
    assert actions(key=made["id"]) == ["create_api_key"]


def test_the_command_lists_changes(cstar: Run, client: Client) -> None:
    made = client.keys.create("ci", scopes=["jobs:read"])
    client.keys.revoke(made)
    (event,) = json.loads(cstar("audit", "--action", "revoke_api_key", "--json").stdout)

    assert event["object_id"] == made["id"]
    assert len(json.loads(cstar("audit", "--of", made["id"], "--json").stdout)) == 2
    assert "create_api_key" in cstar("audit").stdout


def test_architectures_are_listed(cstar: Run, client: Client) -> None:
    names = [entry.name for entry in architectures()]

    assert [one["name"] for one in client.architectures.list()] == names
    assert [one["name"] for one in json.loads(cstar("architectures", "--json").stdout)] == names
    assert names[0] in cstar("architectures").stdout
