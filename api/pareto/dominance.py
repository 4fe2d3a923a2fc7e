"""Pareto dominance: which of several points nothing beats on every axis."""

from __future__ import annotations

from collections.abc import Sequence

Costs = tuple[float, ...]


def dominates(one: Costs, other: Costs) -> bool:
    """Say whether `one` is nowhere worse than `other` and somewhere better; less is better."""
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def dominators(points: Sequence[Costs]) -> list[int | None]:
    """Return for each point the index of one on the front that dominates it; None on the front.

    Less is better on every axis. Points that are equal are on the front together, or not at all.
    A dominator comes before what it dominates in lexicographic order, so that one pass in that
    order sees it first (Kung, Luccio and Preparata, 1975).
    """
    found: list[int | None] = [None] * len(points)
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda index: points[index]):
        first = next((other for other in front if dominates(points[other], points[index])), None)
        found[index] = first
        if first is None:
            front.append(index)
    return found
