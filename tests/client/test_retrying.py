"""What is sent again, how often, and what is not."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from cstar_client import (
    ApiError,
    Client,
    Conflict,
    ConnectionFailed,
    CstarError,
    RateLimited,
    Retries,
    ServerError,
    Timeout,
)
from cstar_client.errors import api_error
from cstar_client.retrying import Failure, Patience, retry_after_s
from tests.client.conftest import ATTEMPTS, QUICKLY
from tests.support.scripted import Answer, Scripted, scripted

CUT = Answer(None)
JOB = Answer(body=b'{"id": "job_1"}')
LATER = {"Retry-After": "0"}


def client_of(script: Scripted, retries: Retries = QUICKLY) -> Client:
    return Client(script.url, "cst_key", retries=retries)


@pytest.mark.parametrize(
    "failure",
    [CUT, Answer(503), Answer(502), Answer(504), Answer(429), Answer(409, headers=LATER)],
    ids=["cut", "503", "502", "504", "429", "409 with Retry-After"],
)
def test_a_creating_request_is_sent_again_with_the_same_key(failure: Answer) -> None:
    with scripted(failure, failure, JOB) as script, client_of(script) as client:
        assert client.jobs.create({"seed": 1})["id"] == "job_1"

    keys = [asked.headers["Idempotency-Key"] for asked in script.asked]
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert {asked.body for asked in script.asked} == {b'{"seed":1}'}


def test_two_requests_have_two_keys() -> None:
    with scripted(JOB) as script, client_of(script) as client:
        client.jobs.create({})
        client.jobs.create({})

    first, second = (asked.headers["Idempotency-Key"] for asked in script.asked)
    assert first != second


def test_a_key_of_the_callers_own_is_used() -> None:
    with scripted(JOB) as script, client_of(script) as client:
        client.jobs.create({}, idempotency_key="nightly-2026-11-25")

    assert script.asked[0].headers["Idempotency-Key"] == "nightly-2026-11-25"


@pytest.mark.parametrize(
    ("answer", "error"),
    [(Answer(409), Conflict), (Answer(422), ApiError), (Answer(500), ServerError)],
    ids=["409", "422", "500"],
)
def test_what_does_not_pass_by_itself_is_not_repeated(
    answer: Answer, error: type[ApiError]
) -> None:
    with scripted(answer) as script, client_of(script) as client, pytest.raises(error):
        client.jobs.get("job_1")

    assert len(script.asked) == 1


@pytest.mark.parametrize("failure", [CUT, Answer(503)], ids=["cut", "503"])
def test_an_action_without_a_key_is_not_sent_twice(failure: Answer) -> None:
    with (
        scripted(failure, JOB) as script,
        client_of(script) as client,
        pytest.raises((ConnectionFailed, ServerError)),
    ):
        client.jobs.cancel("job_1")

    assert len(script.asked) == 1


def test_patience_ends_with_the_last_error() -> None:
    with (
        scripted(Answer(503)) as script,
        client_of(script) as client,
        pytest.raises(ServerError) as error,
    ):
        client.jobs.get("job_1")

    assert error.value.status == 503
    assert len(script.asked) == ATTEMPTS


class Clock:
    """Time that passes in pauses alone; `slept` are those."""

    def __init__(self) -> None:
        self.now, self.slept = 1000.0, list[float]()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("cstar_client.retrying.time", clock)
    return clock


AWAY = ConnectionFailed("no answer", sent=False)


def endured(patience: Patience, failure: Failure = AWAY) -> None:
    while True:
        patience.endure(failure)


def test_what_keeps_failing_is_tried_for_as_long_as_said_and_once_more_at_the_end(
    clock: Clock,
) -> None:
    with pytest.raises(ConnectionFailed):
        endured(Patience(Retries(total_s=45), None))

    assert sum(clock.slept) == pytest.approx(45)
    assert max(clock.slept) <= Retries.most_s


def test_patience_begins_anew_with_progress(clock: Clock) -> None:
    patience = Patience(Retries(total_s=45), None)
    with pytest.raises(ConnectionFailed):
        endured(patience)
    patience.renew()
    with pytest.raises(ConnectionFailed):
        endured(patience)

    assert sum(clock.slept) == pytest.approx(90)


def test_patience_of_nothing_is_one_attempt(clock: Clock) -> None:
    with pytest.raises(ConnectionFailed):
        endured(Patience(Retries(total_s=0), None))

    assert clock.slept == []


def test_a_deadline_ends_patience_as_a_timeout_that_says_why(clock: Clock) -> None:
    with pytest.raises(Timeout, match="no answer"):
        endured(Patience(Retries(total_s=45), None, deadline=clock.now + 10))

    assert sum(clock.slept) == pytest.approx(10)


def test_a_service_that_asks_for_more_time_than_there_is_is_not_waited_for(clock: Clock) -> None:
    busy = api_error(503, {}, retry_after_s=46)
    with pytest.raises(ServerError):
        endured(Patience(Retries(total_s=45), None), busy)

    assert clock.slept == []


def test_waiting_for_a_job_of_a_service_that_is_away_ends_in_time() -> None:
    with scripted(JOB) as script:
        url = script.url
    with Client(url, "cst_key") as client, pytest.raises(Timeout, match="no answer"):
        client.jobs.wait("job_1", timeout_s=0.1)


def test_waiting_for_a_service_that_accepts_and_says_nothing_ends_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cstar_client.transport.GRACE_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Client(url, "cst_key") as client, pytest.raises(Timeout, match="no answer"):
            client.jobs.wait("job_1", timeout_s=0.1)


def test_a_server_that_is_not_there_is_a_connection_that_failed() -> None:
    with scripted(JOB) as script:
        url = script.url
    with Client(url, "cst_key", retries=QUICKLY) as client, pytest.raises(ConnectionFailed) as e:
        client.jobs.cancel("job_1")

    assert not e.value.sent
    assert url.removeprefix("http://") in str(e.value)


def test_retry_after_is_waited_for_and_told() -> None:
    told: list[tuple[Failure, float]] = []
    wait = Answer(429, headers={"Retry-After": "1"})
    with (
        scripted(wait, JOB) as script,
        Client(
            script.url,
            "cst_key",
            retries=QUICKLY,
            on_retry=lambda failure, pause_s: told.append((failure, pause_s)),
        ) as client,
    ):
        client.jobs.get("job_1")

    ((failure, pause_s),) = told
    assert isinstance(failure, RateLimited)
    assert pause_s == 1.0


def test_a_retry_after_that_is_too_long_is_an_error() -> None:
    with (
        scripted(Answer(429, headers={"Retry-After": "3600"})) as script,
        client_of(script) as client,
        pytest.raises(RateLimited) as error,
    ):
        client.jobs.get("job_1")

    assert error.value.retry_after_s == 3600
    assert len(script.asked) == 1


def test_retry_after_may_be_a_date() -> None:
    moment = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=0)  # a date has none
    before = datetime.now(UTC)
    seconds = retry_after_s(format_datetime(moment, usegmt=True))
    after = datetime.now(UTC)

    assert seconds is not None
    assert moment - after <= timedelta(seconds=seconds) <= moment - before


@pytest.mark.parametrize("zone", ["", " -0000"])
def test_a_date_without_a_zone_is_one_of_utc(zone: str) -> None:
    moment = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=0)
    seconds = retry_after_s(f"{moment:%a, %d %b %Y %H:%M:%S}{zone}")
    after = datetime.now(UTC)

    assert seconds is not None
    assert timedelta(seconds=seconds) >= moment - after
    assert seconds <= 3600.0


@pytest.mark.parametrize(
    "value", [None, "soon", "", "Wed, 99 Nov 2026", "Wed, 25 Nov 2026 21:00:00 +9999999999999"]
)
def test_a_retry_after_that_cannot_be_read_is_none(value: str | None) -> None:
    assert retry_after_s(value) is None


def test_an_answer_that_is_no_problem_document_is_told_as_it_is() -> None:
    page = Answer(404, b"<h1>nginx</h1>", {"Content-Type": "text/html"})
    with scripted(page) as script, client_of(script) as client, pytest.raises(ApiError) as error:
        client.jobs.get("job_1")

    assert "nginx" in str(error.value)
    assert error.value.code == "unknown"


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b"<h1>log in</h1>", {"Content-Type": "text/html"}),
        Answer(301, b"", {"Location": "https://login.example"}),
        Answer(404, b"[", {"Content-Type": "application/problem+json"}),
    ],
    ids=["a page", "a redirect", "half a problem"],
)
def test_an_answer_of_somebody_else_is_an_error_of_the_client(answer: Answer) -> None:
    with scripted(answer) as script, client_of(script) as client, pytest.raises(ApiError) as error:
        client.jobs.get("job_1")

    assert error.value.status == answer.status
    assert answer.headers.get("Location", "") in str(error.value)
    assert len(script.asked) == 1


def test_an_idempotency_key_that_no_header_can_hold_is_not_sent() -> None:
    with (
        scripted(JOB) as script,
        client_of(script) as client,
        pytest.raises(CstarError, match="ASCII"),
    ):
        client.jobs.create({}, idempotency_key="nächtlich")

    assert not script.asked


def test_an_answer_that_is_held_back_on_purpose_is_not_late() -> None:
    ended = b'{"id": "job_1", "status": "succeeded"}'
    with (
        scripted(Answer(body=ended, delay_s=0.5), Answer(delay_s=60.0)) as script,
        Client(script.url, "cst_key", timeout_s=0.1, retries=Retries(total_s=0)) as client,
    ):
        assert client.jobs.wait("job_1", timeout_s=60)["status"] == "succeeded"
        with pytest.raises(ConnectionFailed):
            client.jobs.get("job_1")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("../api-keys/key_1", "..%2Fapi-keys%2Fkey_1"),
        ("resnet#1?@prod", "resnet%231%3F@prod"),
        ("50% off", "50%25%20off"),
    ],
)
def test_an_id_is_one_part_of_the_path_whatever_is_in_it(name: str, path: str) -> None:
    with scripted(JOB) as script, client_of(script) as client:
        client.models.get(name)
        client.jobs.get(name)

    assert [asked.path for asked in script.asked] == [f"/v1/models/{path}", f"/v1/jobs/{path}"]
