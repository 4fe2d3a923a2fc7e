"""Check a safetensors header against its file before the parser maps it.

Format: 8 bytes little-endian header length, the JSON header, then the data; the offsets of the
tensors must tile the data without holes (safetensors specification, "Format").
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

from cstar_core.errors import InvalidModel
from cstar_core.files.listing import shown

_ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}


@dataclass(frozen=True)
class TensorSpan:
    """One tensor as the header declares it: shape, and the bytes [begin, end) of the data."""

    name: str
    shape: tuple[int, ...]
    begin: int
    end: int


def looks_like_safetensors(head: bytes) -> bool:
    """Whether the first nine bytes could start a safetensors file (length, then `{`)."""
    return head[8:9] == b"{"


def check_header(path: Path, *, max_header_bytes: int, max_tensors: int) -> tuple[TensorSpan, ...]:
    """The tensors a safetensors file declares, once they are known to tile its data exactly.

    Raises `InvalidModel`: `truncated_file`, `invalid_header`, `unsupported_dtype`, `too_large`.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > max_header_bytes:
            raise InvalidModel(
                f"The safetensors header declares {length} bytes; at most {max_header_bytes} are "
                "read. Save the weights again with safetensors.torch.save_file.",
                code="invalid_header",
            )
        text = stream.read(length)
    if len(text) < length:
        raise _truncated(f"the header should have {length} bytes and has {len(text)}")
    header = _parsed(text)
    if len(header) > max_tensors:
        raise InvalidModel(
            f"The file holds {len(header)} tensors; at most {max_tensors} are read.",
            code="too_large",
        )
    spans = tuple(_spans(header))
    _check_tiling(spans, data_bytes=size - 8 - length)
    return spans


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as failure:
        raise _lying(f"it is not valid JSON ({shown(str(failure))})") from failure
    if not isinstance(header, dict):
        raise _lying("it is not a JSON object")
    header.pop("__metadata__", None)
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name appears twice")
    return result


def _spans(header: dict[str, Any]) -> list[TensorSpan]:
    return sorted(
        (_span(name, entry) for name, entry in header.items()),
        key=lambda span: (span.begin, span.end),
    )


def _span(name: str, entry: object) -> TensorSpan:
    fields = entry if isinstance(entry, dict) else {}
    shape, offsets = _sizes(fields.get("shape")), _sizes(fields.get("data_offsets"))
    if shape is None or offsets is None or len(offsets) != 2:
        raise _lying(f"{shown(name)} has no valid shape and data_offsets")
    dtype = fields.get("dtype")
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise InvalidModel(
            f"{shown(name)} has dtype {shown(str(dtype))}; save the weights as float32.",
            code="unsupported_dtype",
        )
    begin, end = offsets
    if end - begin != prod(shape) * _ITEM_BYTES[dtype]:
        raise _lying(f"{shown(name)} needs another number of bytes than its offsets span")
    return TensorSpan(name, shape, begin, end)


def _sizes(value: object) -> tuple[int, ...] | None:
    """A JSON value as a short list of sizes, or None; `type` because bool is an int."""
    if not isinstance(value, list) or len(value) > 16:
        return None
    sizes = tuple(item for item in value if type(item) is int and 0 <= item < 2**48)
    return sizes if len(sizes) == len(value) else None


def _check_tiling(spans: tuple[TensorSpan, ...], *, data_bytes: int) -> None:
    declared = max((span.end for span in spans), default=0)
    if declared > data_bytes:
        raise _truncated(f"the tensors need {declared} bytes and {data_bytes} are there")
    starts_at_zero = not spans or spans[0].begin == 0
    tiles = all(left.end == right.begin for left, right in pairwise(spans))
    if declared != data_bytes or not (starts_at_zero and tiles):
        raise _lying("its tensors overlap or leave holes in the data")


def _lying(reason: str) -> InvalidModel:
    return InvalidModel(
        f"The safetensors header cannot be trusted: {reason}. "
        "Save the weights again with safetensors.torch.save_file.",
        code="invalid_header",
    )


def _truncated(reason: str) -> InvalidModel:
    return InvalidModel(
        f"The safetensors file is cut short: {reason}. Upload the whole file.",
        code="truncated_file",
    )
