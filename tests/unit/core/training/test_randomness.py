from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from cstar_core.training.randomness import derive_seed, generator

purposes = st.lists(st.one_of(st.text(max_size=5), st.integers()), max_size=4)


@given(seed=st.integers(0, 2**40), purpose=purposes)
def test_a_derived_seed_fits_a_torch_generator(seed: int, purpose: list[str | int]) -> None:
    derived = derive_seed(seed, *purpose)
    assert 0 <= derived < 2**63
    assert generator(seed, *purpose).initial_seed() == derived


@given(seed=st.integers(0, 99), first=purposes, second=purposes)
def test_different_purposes_have_different_seeds(
    seed: int, first: list[str | int], second: list[str | int]
) -> None:
    assert (derive_seed(seed, *first) == derive_seed(seed, *second)) == (first == second)


def test_a_derived_seed_never_changes_between_versions() -> None:
    assert derive_seed(0, "attack", 3, 7) == 6986551359289285753


def test_equal_purposes_draw_equal_numbers_without_touching_the_global_generator() -> None:
    before = torch.random.get_rng_state()
    draws = [torch.rand(5, generator=generator(1, "order", 2)) for _ in range(2)]
    assert torch.equal(*draws)
    assert torch.equal(torch.random.get_rng_state(), before)
