from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cstar_core.training.schedules import learning_rate


def cosine(step: int, total: int, warmup: int = 0) -> float:
    return learning_rate("cosine", base=2.0, step=step, total_steps=total, warmup_steps=warmup)


def test_the_cosine_starts_at_the_base_rate_is_half_way_at_half_time_and_ends_at_zero() -> None:
    assert cosine(0, 100) == 2.0
    assert cosine(50, 100) == pytest.approx(1.0)
    assert cosine(100, 100) == pytest.approx(0.0)


def test_warm_up_rises_linearly_to_the_base_rate() -> None:
    assert [cosine(step, 100, warmup=4) for step in range(5)] == [0.5, 1.0, 1.5, 2.0, 2.0]


def test_a_constant_schedule_stays_at_the_base_rate_after_warm_up() -> None:
    rates = [
        learning_rate("constant", base=0.1, step=step, total_steps=9, warmup_steps=2)
        for step in range(9)
    ]
    assert rates == [0.05, *[0.1] * 8]


@given(total=st.integers(1, 200), warmup=st.integers(0, 20))
def test_the_cosine_never_rises_after_warm_up_and_is_never_negative(
    total: int, warmup: int
) -> None:
    rates = [cosine(step, total, warmup) for step in range(warmup, max(total, warmup + 1))]
    assert all(later <= earlier for earlier, later in pairwise(rates))
    assert min(rates) >= 0
