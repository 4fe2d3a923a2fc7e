"""Pareto dominance, as it is defined."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.pareto.dominance import Costs, dominates, dominators

# few values, so that ties are common
VALUES = st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0])


@st.composite
def clouds(draw: st.DrawFn) -> list[Costs]:
    axes = draw(st.integers(1, 4))
    point = st.tuples(*[VALUES] * axes)
    return draw(st.lists(point, max_size=30))


def front(points: Sequence[Costs]) -> list[Costs]:
    found = dominators(points)
    return [point for point, by in zip(points, found, strict=True) if by is None]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((1.0, 1.0), (2.0, 2.0), True),
        ((1.0, 2.0), (1.0, 3.0), True),
        ((1.0, 2.0), (1.0, 2.0), False),
        ((1.0, 3.0), (2.0, 2.0), False),
        ((2.0, 2.0), (1.0, 1.0), False),
    ],
)
def test_a_point_dominates_when_it_is_nowhere_worse_and_somewhere_better(
    one: Costs, other: Costs, expected: bool
) -> None:
    assert dominates(one, other) is expected


def test_a_front_by_hand() -> None:
    points = [(4.0, 1.0), (2.0, 2.0), (3.0, 3.0), (1.0, 4.0), (2.0, 2.0)]
    found = dominators(points)
    assert [by is None for by in found] == [True, True, False, True, True]
    assert points[found[2] or 0] == (2.0, 2.0)


@given(clouds())
def test_no_point_dominates_one_on_the_front(points: list[Costs]) -> None:
    assert not any(dominates(other, point) for point in front(points) for other in points)


@given(clouds())
def test_every_other_point_is_dominated_by_the_one_named_which_is_on_the_front(
    points: list[Costs],
) -> None:
    found = dominators(points)
    for point, by in zip(points, found, strict=True):
        assert by is None or (found[by] is None and dominates(points[by], point))


@given(st.data())
def test_the_order_of_the_points_does_not_matter(data: st.DataObject) -> None:
    points = data.draw(clouds())
    shuffled = data.draw(st.permutations(points))
    assert sorted(front(points)) == sorted(front(shuffled))


@given(clouds())
def test_equal_points_are_on_the_front_together_or_not_at_all(points: list[Costs]) -> None:
    on_front = [by is None for by in dominators(points)]
    for one, first in zip(points, on_front, strict=True):
        assert all(
            first == second for other, second in zip(points, on_front, strict=True) if other == one
        )


@given(clouds())
def test_a_cloud_with_a_point_has_a_front(points: list[Costs]) -> None:
    assert bool(front(points)) == bool(points)
