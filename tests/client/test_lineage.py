"""Versions, aliases, sweeps, frontiers and what is deleted, in the SDK and the command."""

from __future__ import annotations

import json

import pytest

from cstar_client import Client, Conflict, InvalidRequest, NotFound
from store.states import JobState
from tests.api.world import World
from tests.client.conftest import Run

EPSILON = 8 / 255


@pytest.fixture
def compressed(client: Client, world: World) -> str:
    """The id of a compression that has succeeded."""
    job_id = client.jobs.create(world.job_body())["id"]
    world.succeed(job_id)
    return job_id


def test_what_a_job_left_becomes_a_version_with_an_alias(client: Client, compressed: str) -> None:
    made = client.jobs.register(compressed)
    client.models.set_alias(made, "production")

    found = client.models.get(f"{made['name']}@production")
    assert (found["id"], found["version"], found["job_id"]) == (made["id"], 2, compressed)
    assert [one["id"] for one in client.models.list(parent=found["parent_model_id"])] == [
        made["id"]
    ]
    client.models.delete_alias(made, "production")
    with pytest.raises(NotFound):
        client.models.get(f"{made['name']}@production")


def test_the_frontier_has_the_network_and_what_became_of_it(
    client: Client, compressed: str
) -> None:
    model_id = client.jobs.get(compressed)["model_id"]
    found = client.models.pareto(model_id, axes=["parameters", "clean_accuracy"])

    assert found["axes"] == ["parameters", "clean_accuracy"]
    assert {point["kind"] for point in found["data"]} == {"dense", "compressed"}


def test_a_sweep_is_one_job_for_each_ratio_and_seed(client: Client, world: World) -> None:
    made = client.sweeps.create(
        world.model(), world.dataset(), epsilon=EPSILON, ratios=[2, 4], seeds=[0, 1]
    )

    jobs = list(client.jobs.list(sweep=made))
    assert len(jobs) == len(made["jobs"]) == 4
    assert [one["id"] for one in client.sweeps.list()] == [made["id"]]
    assert client.sweeps.cancel(made)["status"] == "cancelled"
    assert client.sweeps.wait(made)["counts"] == {"cancelled": 4}
    assert client.sweeps.pareto(made)["data"] == []
    client.sweeps.delete(made)
    with pytest.raises(NotFound):
        client.sweeps.get(made)


def test_a_sweep_with_a_ratio_out_of_reach_is_refused(client: Client, world: World) -> None:
    with pytest.raises(InvalidRequest, match="target_infeasible"):
        client.sweeps.create(world.model(), world.dataset(), epsilon=EPSILON, ratios=[2, 4000])


def test_what_is_in_use_is_not_deleted(client: Client, world: World) -> None:
    job = client.jobs.create(world.job_body())
    with pytest.raises(Conflict):
        client.models.delete(job["model_id"])

    client.jobs.cancel(job)
    client.jobs.delete(job)
    client.models.delete(job["model_id"])
    client.datasets.delete(job["dataset_id"])
    assert list(client.models.list()) == []


def test_webhook_endpoints_are_made_changed_and_removed(client: Client) -> None:
    made = client.webhooks.create("https://ci.example.com/hook", events=["job.succeeded"])

    assert made["secret"]
    assert client.webhooks.update(made, enabled=False)["enabled"] is False
    assert client.webhooks.rotate_secret(made)["secret"] != made["secret"]
    sent = client.webhooks.test(made)
    assert [one["id"] for one in client.webhooks.deliveries(made)] == [sent["id"]]
    client.webhooks.delete(made)
    assert list(client.webhooks.list()) == []


def test_the_command_sweeps_and_shows_the_frontier(
    cstar: Run,
    client: Client,
    world: World,
) -> None:
    words = ["--data", world.dataset(), "--ratios", "2,4", "--epsilon", "8/255", "--json"]
    made = json.loads(cstar("sweep", world.model(), *words).stdout)
    first, second = (job["id"] for job in made["jobs"])
    world.succeed(first)
    world.bring(second, JobState.FAILED)
    shown = cstar("pareto", made["id"])

    assert made["ratios"] == [2.0, 4.0]
    assert first in shown.stdout
    assert "as uploaded" in shown.stdout
    assert second not in shown.stdout
    assert client.sweeps.wait(made)["status"] == "partly_failed"


def test_the_command_registers_and_names_what_a_job_left(
    cstar: Run,
    client: Client,
    compressed: str,
) -> None:
    model_id = cstar("models", "register", "latest").stdout.strip()
    told = cstar("models", "alias", model_id, "production")

    assert told.stdout.endswith(f"@production is {model_id}\n")
    assert client.models.get(model_id)["aliases"] == ["production"]


def test_the_command_makes_webhooks(cstar: Run, client: Client) -> None:
    made = cstar("webhooks", "create", "https://ci.example.com/hook", "--event", "job.failed")
    (endpoint,) = client.webhooks.list()

    assert made.stdout.startswith("whsec_")
    assert endpoint["events"] == ["job.failed"]
    assert endpoint["id"] in cstar("webhooks", "ls").stdout
    assert cstar("webhooks", "rm", endpoint["id"]).exit_code == 0
