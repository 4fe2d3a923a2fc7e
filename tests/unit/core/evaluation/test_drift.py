from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cstar_core.evaluation.drift import AGREEMENT_FLOOR, Drift, drift, holm

CLASSES = 10


def labels_of(per_class: int) -> Tensor:
    return torch.arange(CLASSES).repeat_interleave(per_class)


def wrong_in(labels: Tensor, shares: dict[int, float], *, last: bool = False) -> Tensor:
    """Predictions that miss the first (or last) share of each class named."""
    predictions = labels.clone()
    for number, share in shares.items():
        rows = (labels == number).nonzero()[:, 0]
        count = round(share * len(rows))
        chosen = rows[len(rows) - count :] if last else rows[:count]
        predictions[chosen] = (number + 1) % CLASSES
    return predictions


def codes(found: Drift) -> list[str]:
    return [flag.code for flag in found.flags]


def test_a_class_that_loses_more_than_the_others_is_flagged() -> None:
    labels = labels_of(100)
    found = drift(labels, wrong_in(labels, {3: 0.3}), labels, names=list("abcdefghij"))
    assert codes(found) == ["class_shift"]
    assert "class 3 (d) went from 100.0% to 70.0% on 100 examples" in found.flags[0].detail
    assert "27.0 points more than the average class" in found.flags[0].detail
    assert found.most_changed == [3]


def test_a_loss_that_all_classes_share_is_not_a_shift() -> None:
    labels = labels_of(1000)
    everywhere = dict.fromkeys(range(CLASSES), 0.15) | {4: 0.16}
    assert codes(drift(labels, wrong_in(labels, everywhere), labels)) == []


def test_a_significant_loss_of_less_than_five_points_more_is_not_flagged() -> None:
    labels = labels_of(1000)
    found = drift(labels, wrong_in(labels, {0: 0.04}), labels)
    assert found.classes[0].p_lost < 0.001
    assert codes(found) == []


def test_a_large_loss_on_a_few_examples_is_not_flagged() -> None:
    labels = labels_of(10)
    found = drift(labels, wrong_in(labels, {0: 0.3}), labels)
    assert found.classes[0].excess_loss > 0.2
    assert codes(found) == []


def test_a_class_that_gains_is_never_flagged() -> None:
    labels = labels_of(100)
    assert codes(drift(wrong_in(labels, {2: 0.4}), labels, labels)) == []


def test_networks_that_seldom_agree_are_flagged_though_equally_accurate() -> None:
    labels = labels_of(100)
    share = dict.fromkeys(range(CLASSES), 0.15)
    found = drift(wrong_in(labels, share), wrong_in(labels, share, last=True), labels)
    assert found.agreement == pytest.approx(0.7)
    assert found.agreement < AGREEMENT_FLOOR
    assert [each.paired.difference for each in found.classes] == [0.0] * CLASSES
    assert codes(found) == ["disagreement"]


def test_agreement_among_examples_both_get_wrong_is_told_apart() -> None:
    labels = torch.zeros(10, dtype=torch.int64)
    before = torch.tensor([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    after = torch.tensor([1, 2, 2, 2, 0, 0, 0, 0, 0, 1])
    found = drift(before, after, labels)
    assert found.agreement == pytest.approx(0.6)
    assert found.agreement_when_both_wrong == pytest.approx(0.25)
    assert drift(labels, labels, labels).agreement_when_both_wrong is None


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=60))
def test_the_classes_sum_up_to_the_whole(rows: list[tuple[int, int, int]]) -> None:
    before, after, labels = torch.tensor(rows).T
    found = drift(before, after, labels)
    assert [each.number for each in found.classes] == sorted(set(labels.tolist()))
    assert sum(each.paired.n for each in found.classes) == found.n == len(rows)
    correct = sum(round(each.after * each.paired.n) for each in found.classes)
    assert correct == int((after == labels).sum())
    assert sum(each.excess_loss for each in found.classes) == pytest.approx(0, abs=1e-9)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_corrected_p_values_keep_their_order_and_are_no_smaller(p_values: list[float]) -> None:
    corrected = holm(p_values)
    assert all(p <= more <= 1 for p, more in zip(p_values, corrected, strict=True))
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    assert [corrected[i] for i in order] == sorted(corrected)
    assert min(corrected) == pytest.approx(min(1.0, len(p_values) * min(p_values)))


def test_the_correction_has_its_textbook_values() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_equal_losses_are_flagged_in_one_run_of_twenty_at_most() -> None:
    source = torch.Generator().manual_seed(0)
    labels, flagged = labels_of(100), 0
    for _ in range(200):
        missed = torch.rand(len(labels), generator=source) < 0.15
        flagged += "class_shift" in codes(drift(labels, torch.where(missed, -1, labels), labels))
    assert flagged <= 10 + 2 * 3  # 5 % of 200, and two standard deviations


def test_the_report_section_is_json_and_says_its_limits() -> None:
    labels = labels_of(36)
    section = json.loads(json.dumps(drift(labels, labels, labels).to_json()))
    assert section["agreement"] == 1
    assert section["classes"][0] == {
        "class": 0,
        "name": None,
        "before": 1.0,
        "after": 1.0,
        "only_before": 0,
        "only_after": 0,
        "n": 36,
        "difference": 0.0,
        "mcnemar_p": 1.0,
    }
    assert "The smallest class has 36 test examples" in section["limits"][0]
    assert "trigger" in section["limits"][1]


@pytest.mark.parametrize("count", [0, 3])
def test_predictions_of_other_examples_are_refused(count: int) -> None:
    labels = torch.zeros(4 if count else 0, dtype=torch.int64)
    with pytest.raises(ValueError, match="for each example"):
        drift(labels[:count], labels, labels)
