"""What a machine lacks is said, not hidden."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.support import requirements
from tests.support.requirements import REQUIRE_ALL, report, require


@pytest.fixture(autouse=True)
def _nothing_missing_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "_missing", Counter())
    monkeypatch.delenv(REQUIRE_ALL, raising=False)


def test_what_is_there_lets_the_test_go_on() -> None:
    require("PostgreSQL", True, "no server answered")
    assert report() == []


def test_what_is_missing_skips_the_test_with_the_reason() -> None:
    with pytest.raises(pytest.skip.Exception, match="no server answered"):
        require("PostgreSQL", False, "no server answered")


def test_what_is_missing_is_said_in_one_line_with_the_number_of_tests() -> None:
    for _ in range(3):
        with pytest.raises(pytest.skip.Exception):
            require("PostgreSQL", False, "no server answered")
    with pytest.raises(pytest.skip.Exception):
        require("CIFAR-10", False, "the data is not at hand")
    assert report() == [
        "not run for want of CIFAR-10 (1 test): the data is not at hand",
        "not run for want of PostgreSQL (3 tests): no server answered",
    ]


def test_what_is_missing_fails_the_test_where_everything_is_required(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(REQUIRE_ALL, "1")
    with pytest.raises(pytest.fail.Exception, match="no server answered"):
        require("PostgreSQL", False, "no server answered")
    assert report() == []


def test_what_another_process_missed_is_told_as_well() -> None:
    requirements.also_missing([("PostgreSQL", "no server answered", 2)])
    with pytest.raises(pytest.skip.Exception):
        require("PostgreSQL", False, "no server answered")
    assert requirements.missing() == [("PostgreSQL", "no server answered", 3)]
