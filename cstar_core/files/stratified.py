"""Seeded splits of labelled examples in which every class keeps its share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cstar_core.errors import InvalidDataset
from cstar_core.files.arrays import Labels

Indices = npt.NDArray[np.int64]


def hold_out(
    labels: Labels, *, seed: int, fraction: float | None = None, count: int | None = None
) -> tuple[Indices, Indices]:
    """Indices (train, held out), each ascending and together all of `labels` (N,).

    Give either the `fraction` in (0, 1) of examples to hold out, or their `count`. Classes are
    held out in proportion, rounded by largest remainder, and every class keeps an example in the
    first part. The same seed gives the same split on every machine.

    Raises `InvalidDataset` (`too_few_examples`) when a part would be empty or a class would lose
    its last example.
    """
    if (fraction is None) == (count is None):
        raise ValueError("give either fraction or count")
    wanted = round(len(labels) * fraction) if fraction is not None else count or 0
    _, members, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if not 0 < wanted <= len(labels) - len(sizes):
        raise InvalidDataset(
            f"{wanted} of {len(labels)} examples in {len(sizes)} classes cannot be set apart so "
            "that every class keeps one and at least one is set apart. Add examples.",
            code="too_few_examples",
        )
    quotas = _quotas(sizes, wanted)
    # An argsort of random keys by class: the first `quota` of each class are held out.
    keys = np.random.Generator(np.random.PCG64(seed)).random(len(labels))
    order = np.lexsort((keys, members))
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    held_out = np.zeros(len(labels), dtype=bool)
    held_out[order[rank < np.repeat(quotas, sizes)]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _quotas(sizes: npt.NDArray[np.int64], wanted: int) -> npt.NDArray[np.int64]:
    """Whole numbers near `wanted * sizes / sum(sizes)` of that sum, none of them a whole class."""
    exact = wanted * sizes / sizes.sum()
    quotas: npt.NDArray[np.int64] = np.minimum(np.floor(exact).astype(np.int64), sizes - 1)
    while (short := wanted - int(quotas.sum())) > 0:
        room = quotas < sizes - 1
        neediest = np.argsort(np.where(room, quotas - exact, np.inf), kind="stable")
        quotas[neediest[: min(short, int(room.sum()))]] += 1
    return quotas
