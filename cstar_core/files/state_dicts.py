"""From whatever a checkpoint holds to plain float32 weights under their own names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor

from cstar_core.errors import InvalidModel
from cstar_core.files.listing import listing, shown

NESTING = ("state_dict", "model_state_dict", "model", "net", "network", "state_dict_ema")
PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "net.")

_DEEPEST = 4
_COUNTER = "num_batches_tracked"
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

T = TypeVar("T")


def find_state(loaded: object) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, from the first of `NESTING` that holds a dictionary.

    Everything that is not a tensor (epoch, accuracy, optimizer) is left behind. Raises
    `InvalidModel` (`no_tensors`) when no tensor is found.
    """
    level = _items(loaded)
    for _ in range(_DEEPEST):
        nested = (_items(level.get(name)) for name in NESTING)
        level = next(filter(None, nested), level)
    tensors = {
        name: value
        for name, value in level.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    if not tensors:
        names = listing(name for name in level if isinstance(name, str))
        raise InvalidModel(
            f"No weights were found in the file (names in it: {names}). "
            "Save them with torch.save(model.state_dict(), path).",
            code="no_tensors",
        )
    return tensors


def _items(level: object) -> dict[object, object]:
    """A plain copy of a dictionary, or an empty one.

    `dict.items` is called unbound: a pickle may put an attribute of that name on an OrderedDict.
    """
    return dict(dict.items(level)) if isinstance(level, dict) else {}


def strip_prefixes(named: Mapping[str, T]) -> dict[str, T]:
    """The same values without the prefixes of `PREFIXES` that every name shares, up to four.

    `module.` comes from DataParallel, `_orig_mod.` from torch.compile, the others from wrappers.
    """
    stripped = dict(named)
    for _ in range(_DEEPEST):
        prefix = _shared_prefix(stripped)
        stripped = {name.removeprefix(prefix): value for name, value in stripped.items()}
    return stripped


def _shared_prefix(named: Mapping[str, object]) -> str:
    """The first prefix that every name has with something behind it, or the empty string."""
    shared = (
        prefix
        for prefix in PREFIXES
        if all(name.startswith(prefix) and name != prefix for name in named)
    )
    return next(shared, "")


def to_float32(state: Mapping[str, Tensor], *, max_elements: int) -> dict[str, Tensor]:
    """Own, contiguous float32 copies; `num_batches_tracked` stays int64.

    Raises `InvalidModel`: `too_large`, `unsupported_dtype`, `not_finite`.
    """
    # A stride of 0 makes a huge tensor of one stored number: count before anything is copied.
    elements = sum(tensor.numel() for tensor in state.values())
    if elements > max_elements:
        raise InvalidModel(
            f"The file holds {elements} numbers; at most {max_elements} are read.", code="too_large"
        )
    converted = {name: _converted(name, tensor) for name, tensor in state.items()}
    _check_finite(converted)
    return converted


def _converted(name: str, tensor: Tensor) -> Tensor:
    counter = name.rsplit(".", 1)[-1] == _COUNTER
    expected = (torch.int64,) if counter else _FLOATS
    if not _is_plain(tensor) or tensor.dtype not in expected:
        raise InvalidModel(
            f"{shown(name)} has dtype {tensor.dtype} and layout {tensor.layout}; "
            "save dense floating-point weights (float32, float16 or bfloat16).",
            code="unsupported_dtype",
        )
    target = torch.int64 if counter else torch.float32
    return torch.empty(tensor.shape, dtype=target).copy_(tensor.detach())


def _is_plain(tensor: Tensor) -> bool:
    return (
        tensor.layout == torch.strided
        and not tensor.is_quantized
        and not tensor.is_nested
        and tensor.device.type == "cpu"
    )


def _check_finite(state: Mapping[str, Tensor]) -> None:
    broken = [name for name, tensor in state.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise InvalidModel(
            f"NaN or infinite weights as float32 in {listing(broken)}. "
            "Upload a checkpoint from before the training diverged.",
            code="not_finite",
        )
