"""Identifiers that sort by the time they were made."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.identifiers import new_id

MILLISECOND = 1_000_000


def test_an_identifier_is_its_prefix_and_26_characters() -> None:
    assert re.fullmatch(r"job_[0-9a-hjkmnp-tv-z]{26}", new_id("job"))


def test_identifiers_of_one_moment_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_800_000_000 * 10**9)
    assert len({new_id("job") for _ in range(10_000)}) == 10_000


@given(
    milliseconds=st.lists(st.integers(0, 2**48 - 1), min_size=2, max_size=20, unique=True),
)
def test_identifiers_sort_by_the_time_they_were_made(milliseconds: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        made = []
        for moment in sorted(milliseconds):
            patch.setattr(time, "time_ns", lambda moment=moment: moment * MILLISECOND)
            made.append(new_id("job"))
    assert made == sorted(made)
