"""What a test needs of the machine: said in one line when it is missing, never hidden."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable

import pytest

REQUIRE_ALL = "CSTAR_TEST_REQUIRE_ALL"

_missing: Counter[tuple[str, str]] = Counter()


def require(name: str, available: bool, why: str, *, installable: bool = True) -> None:
    """Go on when `name` is available; else skip the test and have the summary say so.

    `why` says what was looked for. With `CSTAR_TEST_REQUIRE_ALL=1` the test fails instead, unless
    no install step can bring it (`installable=False`: data that is not part of the project).
    """
    if available:
        return
    if installable and os.environ.get(REQUIRE_ALL) == "1":
        pytest.fail(f"{name} is required by {REQUIRE_ALL}=1: {why}", pytrace=False)
    _missing[name, why] += 1
    pytest.skip(f"{name}: {why}")


def missing() -> list[tuple[str, str, int]]:
    """Return name, reason and number of tests for each thing that was missing in this process."""
    return [(name, why, count) for (name, why), count in sorted(_missing.items())]


def also_missing(elsewhere: Iterable[tuple[str, str, int]]) -> None:
    """Add what was `missing` in another process that ran a part of the tests."""
    for name, why, count in elsewhere:
        _missing[name, why] += count


def report() -> list[str]:
    """Return one line for each thing that was missing."""
    return [
        f"not run for want of {name} ({count} test{'s' * (count > 1)}): {why}"
        for name, why, count in missing()
    ]
