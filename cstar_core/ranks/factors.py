"""The factors of a layer as layers of their own: what is timed, and at which ranks.

Every factor is a plain convolution or linear layer, so a `Layer` describes it. They are nameless:
factors of one geometry are equal, whichever layers they belong to.
"""

from __future__ import annotations

from dataclasses import replace

from cstar_core.layers import Layer
from cstar_core.ranks.scope import SCOPES, why_dense

HALVINGS = 5  # the grid of ranks: the largest, its half, ... and 1


def pieces(layer: Layer) -> list[Layer]:
    """Everything to time for `layer`: itself, and its factors over the grid of ranks."""
    if why_dense(layer, SCOPES[-1]):
        return [nameless(layer)]
    out_ranks, in_ranks = rank_values(layer)
    cores = [core_factor(layer, r_out, r_in) for r_out in out_ranks for r_in in in_ranks]
    return [
        nameless(layer),
        *(first_factor(layer, rank) for rank in in_ranks),
        *(last_factor(layer, rank) for rank in out_ranks),
        *(cores if layer.kind == "conv" else []),
    ]


def rank_values(layer: Layer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ranks at which the factors are timed, r_out and r_in."""
    r_out, r_in = (
        tuple(sorted({1, *(max(1, largest >> halving) for halving in range(HALVINGS + 1))}))
        for largest in layer.max_ranks
    )
    return r_out, r_in


def first_factor(layer: Layer, rank: int) -> Layer:
    """The factor I -> rank; in an SVD pair it carries the stride."""
    piece = replace(nameless(layer), O=rank, bias=False)
    if layer.kind != "conv":
        return piece
    return replace(_one_by_one(piece), output_hw=layer.input_hw)


def core_factor(layer: Layer, r_out: int, r_in: int) -> Layer:
    """The factor r_in -> r_out of a k x k convolution, with its kernel and movement."""
    return replace(nameless(layer), O=r_out, I=r_in, bias=False)


def last_factor(layer: Layer, rank: int) -> Layer:
    """The factor rank -> O, at the output resolution."""
    piece = replace(nameless(layer), I=rank, input_hw=layer.output_hw)
    return piece if layer.kind == "linear" else _one_by_one(piece)


def _one_by_one(layer: Layer) -> Layer:
    one, none = (1, 1), (0, 0)
    return replace(layer, kind="pointwise", kernel=one, stride=one, padding=none, dilation=one)


def nameless(layer: Layer) -> Layer:
    """The layer by its geometry alone."""
    return replace(layer, name="", is_stem=False)
