from __future__ import annotations

import json
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cstar_core.evaluation.statistics import (
    Accuracy,
    PairedComparison,
    examples_to_decide,
    judge,
    wilson_interval,
)

counts = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts)
def test_the_interval_contains_the_value_and_lies_in_the_unit_interval(
    count: tuple[int, int],
) -> None:
    accuracy = Accuracy(*count)
    low, high = accuracy.interval
    assert 0 <= low <= accuracy.value <= high <= 1


@given(counts)
def test_the_ends_of_the_interval_solve_the_score_equation(count: tuple[int, int]) -> None:
    accuracy = Accuracy(*count)
    for end in accuracy.interval:
        error = 1.959963984540054 * math.sqrt(end * (1 - end) / accuracy.n)
        if 0 < end < 1:
            assert abs(accuracy.value - end) == pytest.approx(error, abs=1e-9)


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_the_interval_has_its_published_values(
    correct: int, n: int, low: float, high: float
) -> None:
    assert Accuracy(correct, n).interval == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("n", "half_width"), [(100, 0.096), (1000, 0.031), (10000, 0.0098)])
def test_the_interval_at_one_half_narrows_with_the_root_of_n(n: int, half_width: float) -> None:
    low, high = Accuracy(n // 2, n).interval
    assert (high - low) / 2 == pytest.approx(half_width, abs=5e-4)


def test_an_accuracy_is_json_with_its_count_and_interval() -> None:
    stored = json.loads(json.dumps(Accuracy(1, 2).to_json()))
    assert stored == {"value": 0.5, "n": 2, "interval": pytest.approx([0.0945, 0.9055], abs=1e-4)}


def test_a_target_is_met_only_by_the_lower_end_of_the_interval() -> None:
    accuracy = Accuracy(50, 100)
    assert accuracy.meets(0.40)
    assert not accuracy.meets(0.45)


def test_fewer_than_a_thousand_examples_are_a_screening() -> None:
    assert Accuracy(500, 999).screening
    assert not Accuracy(500, 1000).screening


targets = st.floats(0, 1)


def leaves_out(value: float, n: int, target: float) -> bool:
    low, high = wilson_interval(value, n)
    return not low <= target <= high


@given(count=counts, target=targets)
def test_the_examples_to_decide_are_the_fewest_that_do(
    count: tuple[int, int], target: float
) -> None:
    value = count[0] / count[1]
    needed = examples_to_decide(*count, target)
    if needed is None:
        assert not leaves_out(value, 10_000_000 - 1, target)
    else:
        assert leaves_out(value, needed, target)
        assert needed == 1 or not leaves_out(value, needed - 1, target)


@given(count=counts, target=targets, more=st.integers(1, 50))
def test_once_enough_examples_decide_a_target_more_do_too(
    count: tuple[int, int], target: float, more: int
) -> None:
    needed = examples_to_decide(*count, target)
    if needed is not None:
        assert leaves_out(count[0] / count[1], needed + more, target)


@given(count=counts, target=targets)
def test_as_many_examples_of_the_same_accuracy_meet_the_target_or_miss_it(
    count: tuple[int, int], target: float
) -> None:
    correct, n = count
    needed = examples_to_decide(correct, n, target)
    if needed is not None:
        times = -(-needed // n)
        enough = Accuracy(times * correct, times * n)
        assert enough.meets(target) == (correct / n > target)
        assert not judge(enough, target).undecided


@given(count=counts, further=st.tuples(targets, targets))
def test_a_target_further_away_needs_no_more_examples(
    count: tuple[int, int], further: tuple[float, float]
) -> None:
    value = count[0] / count[1]
    near, far = sorted(further, key=lambda target: abs(target - value))
    if (near > value) != (far > value) or near == value:
        return
    most = 10**9
    for_near, for_far = (examples_to_decide(*count, target) or most for target in (near, far))
    assert for_far <= for_near


@pytest.mark.parametrize(
    ("correct", "n", "target", "needed"),
    [(55, 100, 0.5, 385), (51, 100, 0.5, 9604), (50, 100, 0.5, None), (0, 10, 0.2775, 11)],
)
def test_the_examples_to_decide_have_their_known_values(
    correct: int, n: int, target: float, needed: int | None
) -> None:
    assert examples_to_decide(correct, n, target) == needed


def test_more_than_ten_million_examples_are_no_answer() -> None:
    assert examples_to_decide(50_001, 100_000, 0.5) is None


@pytest.mark.parametrize(
    ("correct", "target", "said"),
    [
        (55, 0.5, {"outcome": "missed", "undecided": True, "examples_needed": 385}),
        (45, 0.5, {"outcome": "missed", "undecided": True, "examples_needed": 385}),
        (50, 0.5, {"outcome": "missed", "undecided": True, "examples_needed": None}),
        (70, 0.5, {"outcome": "met", "undecided": False, "examples_needed": None}),
        (30, 0.5, {"outcome": "missed", "undecided": False, "examples_needed": None}),
    ],
)
def test_a_target_is_met_missed_or_undecided(
    correct: int, target: float, said: dict[str, object]
) -> None:
    assert judge(Accuracy(correct, 100), target).to_json() == said


@given(count=counts, target=targets)
def test_a_judgement_agrees_with_the_interval(count: tuple[int, int], target: float) -> None:
    accuracy = Accuracy(*count)
    judged = judge(accuracy, target)
    assert (judged.outcome == "met") == accuracy.meets(target)
    assert not (judged.outcome == "met" and judged.undecided)
    assert judged.undecided or judged.examples_needed is None


@pytest.mark.parametrize(("correct", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(correct: int, n: int) -> None:
    with pytest.raises(ValueError, match="correct"):
        Accuracy(correct, n)


def test_an_accuracy_counts_verdicts() -> None:
    assert Accuracy.of(torch.tensor([True, False, True])) == Accuracy(2, 3)


@given(only_before=st.integers(0, 60), only_after=st.integers(0, 60))
def test_the_p_value_is_the_exact_binomial_tail(only_before: int, only_after: int) -> None:
    n = only_before + only_after
    tail = sum(math.comb(n, k) for k in range(min(only_before, only_after) + 1))
    exact = min(Fraction(1), 2 * Fraction(tail, 2**n))
    comparison = PairedComparison(only_before, only_after, n=200)
    assert comparison.p_value == pytest.approx(float(exact), rel=1e-12)


def test_the_p_value_of_thousands_of_discordant_pairs_is_a_number() -> None:
    assert 0 < PairedComparison(4900, 5100, n=20000).p_value < 0.05


def test_a_comparison_counts_the_pairs_that_only_one_model_gets_right() -> None:
    before = torch.tensor([True, True, True, False, False])
    after = torch.tensor([True, False, False, True, False])
    comparison = PairedComparison.of(before, after)
    assert comparison == PairedComparison(only_before=2, only_after=1, n=5)
    assert comparison.difference == pytest.approx(-0.2)
    assert comparison.to_json()["mcnemar_p"] == 1.0


def test_verdicts_of_different_lengths_are_no_pairs() -> None:
    with pytest.raises(ValueError, match="not pairs"):
        PairedComparison.of(torch.ones(3), torch.ones(4))
