"""Algorithm 1: what is always true of the projection, and the oracle it is compared with."""

from __future__ import annotations

import pytest
import tensorly
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorly.decomposition import partial_tucker
from torch import Tensor

from cstar_core.errors import Diverged
from cstar_core.factorization import HOOI_SWEEPS
from cstar_core.projection import Ranks, core_energy, project, svd_energy, tucker2
from tests.support.checkpoints import RESNET20, published

from .networks import random_weight

SIZES = st.integers(1, 7)


@st.composite
def weights_and_ranks(draw: st.DrawFn) -> tuple[Tensor, Ranks]:
    """Any weight, square kernel or not, matrix or not, and ranks up to past its sizes."""
    kernel = draw(st.sampled_from([(), (1, 1), (3, 3), (1, 3), (3, 2)]))
    weight = random_weight(draw(SIZES), draw(SIZES), *kernel, seed=draw(st.integers(0, 10**6)))
    return weight, Ranks(draw(st.integers(1, 9)), draw(st.integers(1, 9)))


def tail(weight: Tensor, mode: int, rank: int) -> float:
    """Sum of the discarded sigma^2 of one unfolding, by SVD."""
    sigma = torch.linalg.svdvals(weight.transpose(0, mode).flatten(1))
    return float(sigma[rank:].square().sum())


def error(weight: Tensor, ranks: Ranks, *, hooi_sweeps: int = 0) -> float:
    return float((weight - project(weight, ranks, hooi_sweeps=hooi_sweeps)).norm())


properties = settings(max_examples=40, deadline=None, derandomize=True)


@properties
@given(weights_and_ranks(), st.integers(0, 2))
def test_projecting_twice_changes_nothing(example: tuple[Tensor, Ranks], sweeps: int) -> None:
    weight, ranks = example
    once = project(weight, ranks, hooi_sweeps=sweeps)
    torch.testing.assert_close(project(once, ranks, hooi_sweeps=sweeps), once, rtol=0, atol=1e-6)


@properties
@given(weights_and_ranks())
def test_the_error_is_never_larger_than_the_weight(example: tuple[Tensor, Ranks]) -> None:
    weight, ranks = example
    assert error(weight, ranks) <= float(weight.norm()) * (1 + 1e-9)


@properties
@given(weights_and_ranks(), st.integers(0, 2))
def test_the_error_lies_between_the_tails(example: tuple[Tensor, Ranks], sweeps: int) -> None:
    weight, ranks = example
    held = tucker2(weight, ranks).ranks
    tails = [tail(weight, mode, rank) for mode, rank in enumerate(held)]
    squared = error(weight, ranks, hooi_sweeps=sweeps) ** 2
    slack = 1e-9 * float(weight.norm()) ** 2
    assert max(tails) - slack <= squared <= sum(tails) + slack


@properties
@given(weights_and_ranks())
def test_full_ranks_give_the_weight_back(example: tuple[Tensor, Ranks]) -> None:
    weight, _ = example
    torch.testing.assert_close(project(weight, Ranks(9, 9)), weight, rtol=0, atol=1e-6)


@properties
@given(weights_and_ranks())
def test_factors_have_orthonormal_columns(example: tuple[Tensor, Ranks]) -> None:
    parts = tucker2(*example)
    for factor in (parts.out_factor, parts.in_factor):
        identity = torch.eye(factor.shape[1], dtype=factor.dtype)
        torch.testing.assert_close(factor.T @ factor, identity)


@properties
@given(weights_and_ranks())
def test_ranks_are_clipped_to_the_sizes_of_the_weight(example: tuple[Tensor, Ranks]) -> None:
    weight, ranks = example
    outputs, inputs = weight.shape[:2]
    expected = Ranks(min(ranks.r_out, outputs), min(ranks.r_in, inputs))
    if weight[0, 0].numel() == 1:
        expected = Ranks(min(expected), min(expected))
    assert tucker2(weight, ranks).ranks == expected


@properties
@given(weights_and_ranks())
def test_hooi_never_raises_the_error(example: tuple[Tensor, Ranks]) -> None:
    weight, ranks = example
    assert error(weight, ranks, hooi_sweeps=2) <= error(weight, ranks) * (1 + 1e-9) + 1e-9


@properties
@given(SIZES, SIZES, st.integers(1, 7), st.booleans(), st.integers(0, 10**6))
def test_a_matrix_gets_its_truncated_svd(
    outputs: int, inputs: int, rank: int, pointwise: bool, seed: int
) -> None:
    matrix = random_weight(outputs, inputs, seed=seed)
    weight = matrix[:, :, None, None] if pointwise else matrix
    left, sigma, right = torch.linalg.svd(matrix, full_matrices=False)
    expected = left[:, :rank] * sigma[:rank] @ right[:rank]
    found = project(weight, Ranks(rank, rank)).reshape(matrix.shape)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(8, 12, 3, 3), (16, 6, 3, 3), (9, 9, 1, 3), (10, 10, 5, 5)])
@pytest.mark.parametrize("ranks", [Ranks(4, 4), Ranks(2, 5), Ranks(6, 3)])
def test_the_error_is_that_of_tensorly(shape: tuple[int, ...], ranks: Ranks) -> None:
    weight = random_weight(*shape)
    with tensorly.backend_context("pytorch"):
        decomposition, _ = partial_tucker(weight, rank=list(ranks), modes=[0, 1])
        core, factors = decomposition
        oracle = tensorly.tenalg.multi_mode_dot(core, factors, modes=[0, 1])
    reference = float((weight - oracle).norm())
    assert error(weight, ranks, hooi_sweeps=10) <= reference * 1.005
    assert error(weight, ranks) <= reference * 1.05


@pytest.mark.parametrize("fraction", [1 / 8, 1 / 4, 1 / 2])
def test_hooi_on_a_trained_network_is_within_a_thousandth_of_tensorly(fraction: float) -> None:
    weights = [weight for weight in published(RESNET20).values() if weight.dim() == 4][1:]
    for weight in weights:
        ranks = Ranks(*(int(size * fraction) for size in weight.shape[:2]))
        with tensorly.backend_context("pytorch"):
            (core, factors), _ = partial_tucker(weight, rank=list(ranks), modes=[0, 1])
            oracle = tensorly.tenalg.multi_mode_dot(core, factors, modes=[0, 1])
        reference = float((weight - oracle).norm())
        assert error(weight, ranks, hooi_sweeps=HOOI_SWEEPS) <= reference * 1.001


@pytest.fixture
def decomposed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The size of every matrix whose eigenvectors are computed in a test."""
    sizes: list[int] = []
    eigh = torch.linalg.eigh

    def recording(matrix: Tensor) -> object:
        sizes.append(len(matrix))
        return eigh(matrix)

    monkeypatch.setattr("cstar_core.projection.torch.linalg.eigh", recording)
    return sizes


def test_hooi_ends_once_a_sweep_gains_next_to_nothing(decomposed: list[int]) -> None:
    project(random_weight(12, 10, 3, 3), Ranks(4, 4), hooi_sweeps=10_000)
    assert 4 <= len(decomposed) <= 200  # two for each sweep


def test_a_long_linear_layer_needs_no_gram_matrix_of_its_long_side(decomposed: list[int]) -> None:
    weight = random_weight(6, 3000)
    left, sigma, right = torch.linalg.svd(weight, full_matrices=False)
    expected = left[:, :4] * sigma[:4] @ right[:4]
    torch.testing.assert_close(project(weight, Ranks(4, 4)), expected, rtol=0, atol=1e-6)
    assert max(decomposed) == 6


@properties
@given(weights_and_ranks())
def test_core_energy_is_the_energy_the_truncated_hosvd_keeps(
    example: tuple[Tensor, Ranks],
) -> None:
    weight, ranks = example
    outputs, inputs = weight.shape[:2]
    r_out, r_in = min(ranks.r_out, outputs), min(ranks.r_in, inputs)
    left = torch.linalg.svd(weight.flatten(1))[0][:, :r_out]
    right = torch.linalg.svd(weight.transpose(0, 1).flatten(1))[0][:, :r_in]
    core = torch.einsum("oi...,op,iq->pq...", weight, left, right)
    kept = core_energy(weight)
    assert kept.shape == (outputs, inputs)
    assert float(kept[r_out - 1, r_in - 1]) == pytest.approx(float(core.square().sum()), rel=1e-6)


@properties
@given(weights_and_ranks())
def test_core_energy_grows_with_either_rank_up_to_the_whole(
    example: tuple[Tensor, Ranks],
) -> None:
    weight, _ = example
    kept = core_energy(weight)
    assert bool((kept.diff(dim=0) >= 0).all())
    assert bool((kept.diff(dim=1) >= 0).all())
    assert float(kept[-1, -1]) == pytest.approx(float(weight.square().sum()))


@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (5, 8, 1, 1)])
def test_svd_energy_sums_the_largest_squared_singular_values(shape: tuple[int, ...]) -> None:
    weight = random_weight(*shape)
    expected = torch.linalg.svdvals(weight.flatten(1)).square().cumsum(0)
    torch.testing.assert_close(svd_energy(weight), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_projection_has_the_dtype_of_the_weight(dtype: torch.dtype) -> None:
    weight = random_weight(4, 5, 3, 3, dtype=dtype)
    assert project(weight, Ranks(2, 2)).dtype == dtype
    assert tucker2(weight, Ranks(2, 2)).core.dtype == dtype


def test_no_gradient_flows_through_a_projection() -> None:
    weight = random_weight(4, 5, 3, 3).requires_grad_()
    assert not project(weight, Ranks(2, 2)).requires_grad


def test_a_weight_of_zeros_projects_to_zeros() -> None:
    weight = torch.zeros(4, 5, 3, 3)
    assert torch.equal(project(weight, Ranks(2, 3)), weight)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_reported_as_diverged(bad: float) -> None:
    weight = random_weight(4, 5, 3, 3)
    weight[1, 2, 0, 0] = bad
    with pytest.raises(Diverged, match="learning rate"):
        project(weight, Ranks(2, 2))


def test_a_rank_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        project(random_weight(4, 5, 3, 3), Ranks(0, 2))


def test_a_vector_is_refused() -> None:
    with pytest.raises(ValueError, match="dimensions"):
        project(torch.ones(4), Ranks(1, 1))
