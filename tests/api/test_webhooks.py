"""Webhook endpoints and deliveries, as a client sees them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from store.settings import Settings
from store.states import JobState, WebhookEvent
from store.tables import WebhookDelivery, WebhookEndpoint
from store.webhooks.deliveries import Outcome
from tests.api.world import World
from tests.support import rows
from tests.support.hostile_urls import FORBIDDEN
from tests.support.webhooks import add_endpoint, attempt, make_due, read_endpoint, take

URL = "https://hooks.example.com/cstar"
PLACE = "/v1/webhook-endpoints"


def make(client: Any, **fields: Any) -> dict[str, Any]:
    answer = client.post(PLACE, json={"url": URL} | fields)
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document


def signing(client: Any, world: World, made: dict[str, Any]) -> tuple[str, ...]:
    """Return the secrets that sign what is sent now."""
    client.post(f"{PLACE}/{made['id']}/test")
    claim = take(world.database, made["id"])
    assert claim is not None
    return claim.secrets


def cancelled_job(client: Any, world: World) -> str:
    """Cancel a job, which is told; returns its id."""
    job_id: str = client.post("/v1/jobs", json=world.job_body()).json()["id"]
    client.post(f"/v1/jobs/{job_id}/cancel")
    return job_id


def listed(client: Any, endpoint_id: str, **query: str) -> list[dict[str, Any]]:
    data: list[dict[str, Any]] = client.get(
        f"{PLACE}/{endpoint_id}/deliveries", params=query
    ).json()["data"]
    return data


def test_an_endpoint_is_made_with_a_secret_that_is_shown_once(client: Any) -> None:
    answer = client.post(PLACE, json={"url": URL, "description": "CI", "events": ["job.failed"]})
    made = answer.json()
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"{PLACE}/{made['id']}"
    assert made["id"].startswith("whe_")
    assert made["secret"].startswith("whsec_")
    assert (made["url"], made["description"], made["events"]) == (URL, "CI", ["job.failed"])
    assert (made["enabled"], made["notice"]) == (True, None)
    shown = client.get(answer.headers["Location"]).json()
    assert shown == {name: value for name, value in made.items() if name != "secret"}
    assert client.get(PLACE).json()["data"] == [shown]


def test_everything_is_told_unless_events_are_named(client: Any) -> None:
    assert make(client)["events"] == ["*"]
    every = [event.value for event in WebhookEvent]
    assert make(client, events=every + every[:1])["events"] == sorted(every)


@pytest.mark.parametrize("url", FORBIDDEN.values(), ids=FORBIDDEN)
def test_a_hostile_url_is_refused(client: Any, world: World, url: str) -> None:
    answer = client.post(PLACE, json={"url": url})
    assert answer.status_code == 422
    problem = answer.json()
    too_long = len(url) > 2048
    assert problem["code"] == ("invalid_request" if too_long else "invalid_webhook_url")
    assert problem["errors"][0]["pointer"] == "/url"
    assert rows.count(world.database, WebhookEndpoint) == 0


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"url": ""},
        {"url": "https://hooks.example.com/\0"},
        {"url": URL, "events": []},
        {"url": URL, "events": ["job.exploded"]},
        {"url": URL, "events": "*"},
        {"url": URL, "enabled": None},
        {"url": URL, "enabled": 0},
        {"url": URL, "secret": "whsec_mine"},
        {"url": URL, "description": "a" * 256},
    ],
)
def test_a_body_that_is_not_right_is_refused(client: Any, body: dict[str, Any]) -> None:
    answer = client.post(PLACE, json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def test_a_tenant_has_a_bounded_number_of_endpoints(
    client: Any, stranger: Any, world: World, settings: Settings
) -> None:
    for _ in range(settings.quota_webhook_endpoints):
        add_endpoint(world.database, world.tenant_id)
    answer = client.post(PLACE, json={"url": URL})
    assert (answer.status_code, answer.json()["code"]) == (403, "quota_exceeded")
    assert answer.json()["quota"] == "webhook_endpoints"
    make(stranger)


def test_a_repeated_request_makes_one_endpoint_and_does_not_tell_the_secret_again(
    client: Any, world: World
) -> None:
    headers = {"Idempotency-Key": "once"}
    first, second = (client.post(PLACE, json={"url": URL}, headers=headers) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 201)
    assert "secret" in first.json()
    assert "secret" not in second.json()
    assert first.json()["id"] == second.json()["id"]
    assert rows.count(world.database, WebhookEndpoint) == 1


def test_an_endpoint_is_changed_by_what_is_named(client: Any) -> None:
    made = make(client)
    path = f"{PLACE}/{made['id']}"
    changed = client.patch(path, json={"url": f"{URL}/2", "enabled": False}).json()
    assert (changed["url"], changed["enabled"], changed["events"]) == (f"{URL}/2", False, ["*"])
    changed = client.patch(path, json={"events": ["job.failed"], "description": "new"}).json()
    assert (changed["events"], changed["enabled"]) == (["job.failed"], False)
    assert client.get(path).json() == changed
    assert "secret" not in changed


def test_a_change_to_a_hostile_url_is_refused_and_changes_nothing(client: Any) -> None:
    made = make(client)
    path = f"{PLACE}/{made['id']}"
    answer = client.patch(path, json={"url": "https://169.254.169.254/", "enabled": False})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_webhook_url")
    assert client.get(path).json()["enabled"]


@pytest.mark.parametrize("body", [{}, {"url": None, "enabled": None}])
def test_a_change_that_names_nothing_changes_nothing(client: Any, body: dict[str, Any]) -> None:
    made = make(client)
    answer = client.patch(f"{PLACE}/{made['id']}", json=body)
    assert answer.status_code == 200
    assert answer.json() == {name: value for name, value in made.items() if name != "secret"}


def test_an_endpoint_that_is_removed_is_gone_with_its_deliveries(client: Any, world: World) -> None:
    path = f"{PLACE}/{make(client)['id']}"
    cancelled_job(client, world)
    answer = client.delete(path)
    assert (answer.status_code, answer.content) == (204, b"")
    assert client.get(path).status_code == 404
    assert client.delete(path).status_code == 404
    assert rows.count(world.database, WebhookDelivery) == 0


def test_rotation_gives_a_new_secret_and_keeps_the_old_one_for_a_while(
    client: Any, world: World
) -> None:
    made = make(client)
    rotated = client.post(f"{PLACE}/{made['id']}/rotate-secret").json()
    assert rotated["secret"] != made["secret"]
    assert rotated["previous_secret_expires_at"] is not None
    assert signing(client, world, made) == (rotated["secret"], made["secret"])


def test_rotation_without_an_overlap_ends_the_old_secret_at_once(client: Any, world: World) -> None:
    made = make(client)
    answer = client.post(f"{PLACE}/{made['id']}/rotate-secret", json={"overlap_s": 0})
    assert signing(client, world, made) == (answer.json()["secret"],)
    too_long = client.post(f"{PLACE}/{made['id']}/rotate-secret", json={"overlap_s": 10**7})
    assert too_long.json()["code"] == "invalid_request"


def test_a_second_rotation_drops_no_secret_before_its_time(client: Any, world: World) -> None:
    made = make(client)
    rotate = f"{PLACE}/{made['id']}/rotate-secret"
    rotated = client.post(rotate).json()
    refused = client.post(rotate)
    assert (refused.status_code, refused.json()["code"]) == (409, "rotation_under_way")
    until = datetime.fromisoformat(rotated["previous_secret_expires_at"])
    assert datetime.fromisoformat(refused.json()["possible_at"]) == until
    assert f"{until:%Y-%m-%d %H:%M:%S} UTC" in refused.json()["detail"]
    assert signing(client, world, made) == (rotated["secret"], made["secret"])


def test_a_secret_that_leaked_can_be_ended_at_any_time(client: Any, world: World) -> None:
    made = make(client)
    rotate = f"{PLACE}/{made['id']}/rotate-secret"
    client.post(rotate)
    latest = client.post(rotate, json={"overlap_s": 0}).json()
    assert signing(client, world, made) == (latest["secret"],)
    assert client.post(rotate).status_code == 200


def test_a_test_delivery_is_sent_once_and_can_be_waited_for(client: Any, world: World) -> None:
    made = make(client, enabled=False)
    answer = client.post(f"{PLACE}/{made['id']}/test")
    assert answer.status_code == 202
    assert (answer.json()["type"], answer.json()["status"]) == ("webhook.test", "pending")
    attempt(world.database, made["id"], Outcome(response_status=500))
    waited = client.get(answer.headers["Location"], headers={"Prefer": "wait=30"})
    assert waited.headers["Preference-Applied"] == "wait=30"
    assert (waited.json()["status"], waited.json()["response_status"]) == ("failed", 500)
    assert waited.json()["next_attempt_at"] is None
    assert client.get(f"{PLACE}/{made['id']}").json()["failing_since"] is None


def test_deliveries_are_listed_newest_first_with_where_they_stand(
    client: Any, world: World
) -> None:
    made = make(client, events=["job.queued", "job.cancelled"])
    cancelled_job(client, world)
    attempt(world.database, made["id"], Outcome(response_status=200))
    attempt(world.database, made["id"], Outcome(error="timeout"))
    newest, oldest = listed(client, made["id"])
    assert [newest["type"], oldest["type"]] == ["job.cancelled", "job.queued"]
    assert newest["id"].startswith("whd_")
    assert (newest["status"], newest["attempts"], newest["error"]) == ("pending", 1, "timeout")
    assert newest["next_attempt_at"] is not None
    assert (oldest["status"], oldest["response_status"]) == ("delivered", 200)
    assert listed(client, made["id"], status="delivered") == [oldest]
    page = client.get(f"{PLACE}/{made['id']}/deliveries", params={"limit": 1}).json()
    assert (page["data"], page["has_more"]) == ([newest], True)
    assert listed(client, made["id"], after=page["last_id"]) == [oldest]


def test_a_delivery_is_sent_again_on_demand(client: Any, world: World) -> None:
    made = make(client, events=["job.cancelled"])
    cancelled_job(client, world)
    delivered = attempt(world.database, made["id"], Outcome(response_status=200))
    answer = client.post(f"/v1/webhook-deliveries/{delivered.id}/redeliver")
    assert answer.status_code == 202
    assert answer.json()["status"] == "pending"
    again = attempt(world.database, made["id"], Outcome(response_status=200))
    assert (again.message_id, again.attempts) == (delivered.message_id, 2)


def test_nothing_is_sent_again_to_an_endpoint_that_is_disabled(client: Any, world: World) -> None:
    made = make(client, events=["job.cancelled"])
    cancelled_job(client, world)
    gone = attempt(world.database, made["id"], Outcome(response_status=410))
    shown = client.get(f"{PLACE}/{made['id']}").json()
    assert (shown["enabled"], shown["disabled_reason"]) == (False, "gone")
    assert "410" in shown["notice"]
    answer = client.post(f"/v1/webhook-deliveries/{gone.id}/redeliver")
    assert (answer.status_code, answer.json()["code"]) == (409, "webhook_endpoint_disabled")
    enabled = client.patch(f"{PLACE}/{made['id']}", json={"enabled": True}).json()
    assert (enabled["disabled_reason"], enabled["disabled_at"], enabled["notice"]) == (None,) * 3
    assert client.post(f"/v1/webhook-deliveries/{gone.id}/redeliver").status_code == 202


def test_a_failing_endpoint_says_since_when(client: Any, world: World) -> None:
    made = make(client)
    job_id = client.post("/v1/jobs", json=world.job_body()).json()["id"]
    assert world.bring(job_id, JobState.PAUSED) is None
    attempt(world.database, made["id"], Outcome(response_status=503))
    shown = client.get(f"{PLACE}/{made['id']}").json()
    failing_since = read_endpoint(world.database, made["id"]).failing_since
    assert failing_since is not None
    assert shown["failing_since"] == failing_since.isoformat().replace("+00:00", "Z")
    make_due(world.database)
    attempt(world.database, made["id"], Outcome(response_status=200))
    assert client.get(f"{PLACE}/{made['id']}").json()["failing_since"] is None


FOREIGN: list[Callable[[Any, str, str], Any]] = [
    lambda client, endpoint, _: client.get(f"{PLACE}/{endpoint}"),
    lambda client, endpoint, _: client.patch(f"{PLACE}/{endpoint}", json={"enabled": False}),
    lambda client, endpoint, _: client.delete(f"{PLACE}/{endpoint}"),
    lambda client, endpoint, _: client.post(f"{PLACE}/{endpoint}/rotate-secret"),
    lambda client, endpoint, _: client.post(f"{PLACE}/{endpoint}/test"),
    lambda client, endpoint, _: client.get(f"{PLACE}/{endpoint}/deliveries"),
    lambda client, _, delivery: client.get(f"/v1/webhook-deliveries/{delivery}"),
    lambda client, _, delivery: client.post(f"/v1/webhook-deliveries/{delivery}/redeliver"),
]


@pytest.mark.parametrize("ask", FOREIGN)
def test_what_is_anothers_is_not_there(
    client: Any, stranger: Any, world: World, ask: Callable[[Any, str, str], Any]
) -> None:
    made = make(client)
    delivery = client.post(f"{PLACE}/{made['id']}/test").json()
    answer = ask(stranger, made["id"], delivery["id"])
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert read_endpoint(world.database, made["id"]).enabled
    assert stranger.get(PLACE).json()["data"] == []


def test_a_key_is_needed(anonymous: Any) -> None:
    assert anonymous.get(PLACE).status_code == 401
    assert anonymous.post(PLACE, json={"url": URL}).status_code == 401


def test_metrics_count_deliveries_and_say_how_late_they_are(
    client: Any, anonymous: Any, world: World
) -> None:
    made = make(client)
    client.post(f"{PLACE}/{made['id']}/test")
    make_due(world.database)
    text = anonymous.get("/metrics").text
    assert 'cstar_webhook_deliveries{status="pending"} 1.0' in text
    [late] = [line for line in text.splitlines() if line.startswith("cstar_webhook_lag_seconds ")]
    assert float(late.split()[1]) >= 1
