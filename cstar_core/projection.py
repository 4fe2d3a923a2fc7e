"""Algorithm 1: projection of a weight onto the tensors of given Tucker-2 ranks.

A convolution weight W (O, I, kh, kw) has two unfoldings, W_(out) (O, I kh kw) and W_(in)
(I, O kh kw). Tucker-2 keeps r_out and r_in leading directions of them:

    Z = G x_out U_out x_in U_in,   U_out (O, r_out), U_in (I, r_in) orthonormal columns.

The factors come from the Gram matrices of the unfoldings (size O or I, never I kh kw) by `eigh` in
float64, one mode after the other on what the first has already shrunk: the sequentially truncated
HOSVD. A matrix, or a 1x1 kernel, is the special case in which this is the truncated SVD.

Sources: L. De Lathauwer, B. De Moor, J. Vandewalle, "A multilinear singular value decomposition"
(HOSVD) and "On the best rank-1 and rank-(R1, ..., RN) approximation of higher-order tensors"
(HOOI), SIAM J. Matrix Anal. Appl. 21, 2000; N. Vannieuwenhoven, R. Vandebril, K. Meerbergen, "A new
truncation strategy for the higher-order singular value decomposition", SIAM J. Sci. Comput. 34,
2012 (ST-HOSVD); Y.-D. Kim et al., "Compression of deep convolutional neural networks for fast and
low power mobile applications", ICLR 2016 (Tucker-2 of convolutions); H. Phan et al., "CSTAR",
AAAI 2023 (the projection inside the robust training problem).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from cstar_core.errors import Diverged

OUT, IN = 0, 1


class Ranks(NamedTuple):
    """Multilinear ranks of a weight; an SVD pair of rank r is `Ranks(r, r)`."""

    r_out: int
    r_in: int


@dataclass(frozen=True)
class Tucker2:
    """G x_out U_out x_in U_in: core (r_out, r_in, kh, kw), factors (O, r_out) and (I, r_in)."""

    core: Tensor
    out_factor: Tensor
    in_factor: Tensor

    @property
    def ranks(self) -> Ranks:
        """The ranks actually held, after clipping to the size of the weight."""
        return Ranks(self.core.shape[OUT], self.core.shape[IN])

    def reconstruct(self) -> Tensor:
        """The full weight Z, (O, I, kh, kw) or (O, I)."""
        return torch.einsum("op,pq...,iq->oi...", self.out_factor, self.core, self.in_factor)

    def to(self, dtype: torch.dtype) -> Tucker2:
        """The same decomposition with every part in `dtype`."""
        return Tucker2(self.core.to(dtype), self.out_factor.to(dtype), self.in_factor.to(dtype))


def tucker2(weight: Tensor, ranks: Ranks, *, hooi_sweeps: int = 0) -> Tucker2:
    """Decompose `weight` (O, I, kh, kw) or (O, I) at `ranks`, in the dtype of `weight`.

    Ranks above the size of a mode are clipped to it; on a matrix or a 1x1 kernel both become the
    smaller of the two and the result is the truncated SVD. Each HOOI sweep refreshes both factors
    against each other and never raises the error.

    Raises ValueError for a rank below 1 or a weight of fewer than two dimensions, `Diverged` for
    a weight that is not finite.
    """
    return _decompose(weight, ranks, hooi_sweeps).to(weight.dtype)


def project(weight: Tensor, ranks: Ranks, *, hooi_sweeps: int = 0) -> Tensor:
    """The projection Z of `weight` at `ranks`, of the same shape and dtype (method, section 3)."""
    return _decompose(weight, ranks, hooi_sweeps).reconstruct().to(weight.dtype)


def core_energy(weight: Tensor) -> Tensor:
    """Energy of the leading corners of the full HOSVD core, (O, I) in float64.

    Entry [a - 1, b - 1] is the sum of |G[p, q, :, :]|^2 over p < a, q < b: exactly the part of
    |W|^2 that the truncated HOSVD of ranks (a, b) keeps. The last entry is |W|^2.
    """
    full = _checked(weight)
    out_factor = _leading_directions(full, OUT, full.shape[OUT])
    in_factor = _leading_directions(full, IN, full.shape[IN])
    core = _shrink(_shrink(full, OUT, out_factor), IN, in_factor)
    energy = core.square().flatten(2).sum(2) if core.dim() > 2 else core.square()
    return energy.cumsum(0).cumsum(1)


def svd_energy(weight: Tensor) -> Tensor:
    """Energy that the truncated SVD of rank 1, 2, ... keeps, (min(O, I),) in float64.

    `weight` is (O, I) or (O, I, 1, 1). Entry [r - 1] is the sum of the r largest sigma^2.
    """
    matrix = _checked(weight).flatten(1)
    matrix = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    squares: Tensor = torch.linalg.eigvalsh(matrix @ matrix.T)
    return squares.flip(0).clamp_min(0).cumsum(0)


def _decompose(weight: Tensor, ranks: Ranks, hooi_sweeps: int) -> Tucker2:
    full = _checked(weight)
    ranks = _clipped(full, ranks)
    # The smaller mode first: its Gram matrix is the cheaper one to form from the whole weight.
    first, second = (OUT, IN) if full.shape[OUT] <= full.shape[IN] else (IN, OUT)
    factors: dict[int, Tensor] = {}
    for sweep in range(1 + hooi_sweeps):  # the first pass alone is the ST-HOSVD
        source = full if sweep == 0 else _shrink(full, second, factors[second])
        factors[first] = _leading_directions(source, first, ranks[first])
        shrunk = _shrink(full, first, factors[first])
        factors[second] = _leading_directions(shrunk, second, ranks[second])
    return Tucker2(_shrink(shrunk, second, factors[second]), factors[OUT], factors[IN])


def _leading_directions(tensor: Tensor, mode: int, rank: int) -> Tensor:
    """Eigenvectors of the Gram matrix of one unfolding, largest eigenvalue first, (size, rank)."""
    unfolding = tensor.transpose(0, mode).flatten(1)  # (size, everything else)
    eigenvectors: Tensor = torch.linalg.eigh(unfolding @ unfolding.T).eigenvectors
    return eigenvectors.flip(1)[:, :rank]


def _shrink(tensor: Tensor, mode: int, factor: Tensor) -> Tensor:
    """`tensor` x_mode factor^T: the size of the mode becomes the number of columns."""
    shrunk: Tensor = torch.tensordot(factor, tensor, dims=([0], [mode]))
    return shrunk.transpose(0, mode)


def _clipped(full: Tensor, ranks: Ranks) -> Ranks:
    if min(ranks) < 1:
        raise ValueError(f"ranks must be at least 1, got {tuple(ranks)}")
    r_out, r_in = min(ranks.r_out, full.shape[OUT]), min(ranks.r_in, full.shape[IN])
    if full[0, 0].numel() > 1:
        return Ranks(r_out, r_in)
    return Ranks(min(r_out, r_in), min(r_out, r_in))


def _checked(weight: Tensor) -> Tensor:
    if weight.dim() < 2:
        raise ValueError(f"a weight has the dimensions (O, I, ...), got {tuple(weight.shape)}")
    if not bool(torch.isfinite(weight).all()):
        raise Diverged("a weight holds NaN or infinity: lower the learning rate or rho")
    return weight.detach().double()
