"""Which layers may be factorised, and why the others stay dense."""

from __future__ import annotations

from typing import Literal, get_args

from cstar_core.layers import Layer
from cstar_core.projection import Ranks

Scope = Literal["conv", "pointwise", "linear"]
"""The widest kind of layer factorised: k > 1 convolutions, then 1x1 too, then linear too."""

SCOPES: tuple[Scope, ...] = get_args(Scope)
RANK_ONE = Ranks(1, 1)


def why_dense(layer: Layer, scope: Scope) -> str:
    """Why `layer` is not factorised in this scope, in words; empty if it may be."""
    if layer.is_stem:
        return "the stem stays dense: it is small and everything depends on it"
    if layer.groups > 1:
        return "grouped convolutions stay dense"
    if SCOPES.index(layer.kind) > SCOPES.index(scope):
        what = "1x1 convolutions" if layer.kind == "pointwise" else "linear layers"
        return f"the budget is met without factorising {what}"
    if layer.factorised_parameters(RANK_ONE) >= layer.dense_parameters:
        return "factorising it would not make it smaller, even at rank 1"
    return ""
