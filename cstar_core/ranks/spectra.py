"""The energy each layer keeps at each rank, computed once and shared by all strategies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from cstar_core.layers import Layer
from cstar_core.projection import Ranks, core_energy, svd_energy


@dataclass(frozen=True)
class EnergyTable:
    """Energy kept by truncation: (O, I) over (r_out, r_in), or (min(O, I),) for an SVD."""

    values: NDArray[np.float64]

    @property
    def total(self) -> float:
        """|W|^2, what the dense layer keeps."""
        return float(self.values.flat[-1])

    def kept(self, ranks: Ranks | None) -> float:
        """Energy kept at `ranks`, in the unit of |W|^2; all of it if `ranks` is None."""
        if ranks is None:
            return self.total
        if self.values.ndim == 1:
            return float(self.values[ranks.r_out - 1])
        return float(self.values[ranks.r_out - 1, ranks.r_in - 1])

    def relative(self, ranks: Ranks | None) -> float:
        """Share of |W|^2 kept at `ranks`, in [0, 1]; a weight of zeros keeps everything."""
        return self.kept(ranks) / self.total if self.total > 0 else 1.0


def spectra(
    source: nn.Module | Mapping[str, Tensor], layers: Iterable[Layer]
) -> dict[str, EnergyTable]:
    """Energy tables of all `layers` that could be factorised, by layer name.

    `source` is the network, or the weight tensors by layer name (W + U during ADMM).
    Raises KeyError or AttributeError for a layer the source does not have, `Diverged` for a weight
    that is not finite.
    """
    return {
        layer.name: EnergyTable(_energy(_weight(source, layer.name), layer).cpu().numpy())
        for layer in layers
        if layer.groups == 1
    }


def _energy(weight: Tensor, layer: Layer) -> Tensor:
    return core_energy(weight) if layer.kind == "conv" else svd_energy(weight)


def _weight(source: nn.Module | Mapping[str, Tensor], name: str) -> Tensor:
    if isinstance(source, nn.Module):
        return source.get_parameter(f"{name}.weight")
    return source[name]
