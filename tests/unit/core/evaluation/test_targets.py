"""Targets: when they are met, and when too few examples decide."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cstar_core.evaluation.statistics import Accuracy
from cstar_core.evaluation.targets import accuracy_target, at_least, at_most


@pytest.mark.parametrize(
    ("target", "outcome"),
    [
        (at_least("ratio", 4.0, 4.0), "met"),
        (at_least("ratio", 4.0, 3.99), "missed"),
        (at_most("max_params", 100, 100), "met"),
        (at_most("max_params", 100, 101), "missed"),
    ],
)
def test_a_size_is_met_at_the_limit_itself(target: object, outcome: str) -> None:
    assert target.to_json()["outcome"] == outcome  # type: ignore[attr-defined]


def test_an_accuracy_above_its_target_is_missed_while_its_interval_contains_the_target() -> None:
    row = accuracy_target("robust_accuracy", 0.75, {"correct": 51, "n": 64}).to_json()

    assert row["achieved"] > 0.75
    assert row["outcome"] == "missed"
    assert row["undecided"]
    assert row["examples_needed"] > 64
    assert f"{row['examples_needed']:,}" in row["note"]


def test_an_accuracy_whose_interval_lies_below_is_missed_for_good() -> None:
    row = accuracy_target("clean_accuracy", 0.9, {"correct": 10, "n": 64}).to_json()

    assert (row["outcome"], row["undecided"], row["examples_needed"]) == ("missed", False, None)
    assert row["note"] == ""


@given(n=st.integers(1, 3000), share=st.floats(0, 1), requested=st.floats(0, 1))
def test_an_accuracy_is_met_only_by_the_lower_end_of_its_interval(
    n: int, share: float, requested: float
) -> None:
    correct = round(share * n)
    target = accuracy_target("clean_accuracy", requested, {"correct": correct, "n": n})
    low, high = Accuracy(correct, n).interval

    assert target.met == (low >= requested)
    assert not (target.met and target.undecided)
    assert target.undecided == (low < requested <= high)
