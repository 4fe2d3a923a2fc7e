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

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from cstar_core.errors import Diverged

OUT, IN = 0, 1
HOOI_TOLERANCE = 2e-4  # on trained networks within 1e-3 of the error of an oracle run to its end


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

    def factor(self, mode: int) -> Tensor:
        """The factor of one mode."""
        return self.out_factor if mode == OUT else self.in_factor

    def reconstruct(self) -> Tensor:
        """The full weight Z, (O, I, kh, kw) or (O, I)."""
        return _shrink(_shrink(self.core, IN, self.in_factor.T), OUT, self.out_factor.T)

    def to(self, dtype: torch.dtype) -> Tucker2:
        """The same decomposition with every part in `dtype`."""
        return Tucker2(self.core.to(dtype), self.out_factor.to(dtype), self.in_factor.to(dtype))


def tucker2(weight: Tensor, ranks: Ranks, *, hooi_sweeps: int = 0) -> Tucker2:
    """Decompose `weight` (O, I, kh, kw) or (O, I) at `ranks`, in the dtype of `weight`.

    Ranks above the size of a mode are clipped to it; on a matrix or a 1x1 kernel both become the
    smaller of the two and the result is the truncated SVD. Each of at most `hooi_sweeps` HOOI
    sweeps refreshes both factors against each other and never raises the error; they end when one
    has lowered it by less than `HOOI_TOLERANCE` of itself.

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
    parts = _alternate(full, ranks, None)  # from nothing: the ST-HOSVD
    if hooi_sweeps == 0 or full[0, 0].numel() == 1:  # of a matrix it is the truncated SVD already
        return parts
    energy = full.square().sum()
    error = _error(energy, parts)
    for _ in range(hooi_sweeps):
        parts, before = _alternate(full, ranks, parts), error
        error = _error(energy, parts)
        if before - error <= HOOI_TOLERANCE * before:
            break
    return parts


def _alternate(full: Tensor, ranks: Ranks, current: Tucker2 | None) -> Tucker2:
    """Both factors anew, one after the other, the first on what `current` keeps of the second."""
    # The smaller mode first: its Gram matrix is the cheaper one to form from the whole weight. On
    # ties the input mode: on trained networks HOOI then ends sooner (docs/decisions/0004).
    first, second = (OUT, IN) if full.shape[OUT] < full.shape[IN] else (IN, OUT)
    source = full if current is None else _shrink(full, second, current.factor(second))
    leading = _leading_directions(source, first, ranks[first])
    shrunk = _shrink(full, first, leading)
    other = _leading_directions(shrunk, second, ranks[second])
    factors = (leading, other) if first == OUT else (other, leading)
    return Tucker2(_shrink(shrunk, second, other), *factors)


def _error(energy: Tensor, parts: Tucker2) -> float:
    """|W - Z| from energy |W|^2, by Pythagoras: the factors have orthonormal columns."""
    return math.sqrt(max(0.0, float(energy - parts.core.square().sum())))


def _leading_directions(tensor: Tensor, mode: int, rank: int) -> Tensor:
    """Leading left singular vectors of one unfolding, (size of the mode, rank)."""
    return _left_singular(tensor.transpose(0, mode).flatten(1), rank)


def _left_singular(matrix: Tensor, rank: int) -> Tensor:
    """Eigenvectors of the Gram matrix of the rows, largest eigenvalue first, (rows, rank)."""
    rows, columns = matrix.shape
    if rank <= columns < rows:  # a tall matrix: those of its triangle, which is smaller
        basis, triangle = torch.linalg.qr(matrix)
        directions: Tensor = basis @ _left_singular(triangle, rank)
        return directions
    eigenvectors: Tensor = torch.linalg.eigh(matrix @ matrix.T).eigenvectors
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
