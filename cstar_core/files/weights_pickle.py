"""What the pickle inside a `torch.save` file may do, and loading it once it does nothing else.

Both formats of `torch.save` come through here. torch's own restricted unpickler
(`weights_only=True`) is the second wall: the rules are narrower than its list, because it resizes
storages to whatever a pickle claims.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import IO

import torch

from cstar_core.errors import InvalidModel
from cstar_core.files.listing import listing, shown
from cstar_core.files.pickle_globals import pickle_globals
from cstar_core.files.pickle_opcodes import Opcode
from cstar_core.files.pickle_walk import Call, Global, Persistent, Walk, walk

SAVE_STATE = "Save the weights alone: torch.save(model.state_dict(), path), or safetensors."

_REBUILD = "torch._utils._rebuild_"
_STORAGES = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.ComplexFloatStorage": torch.complex64,
    "torch.ComplexDoubleStorage": torch.complex128,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
_PLAIN = (str, int, float, type(None))
_VIEWS = frozenset((_REBUILD + "tensor", _REBUILD + "tensor_v2"))
_ORDERED = "collections.OrderedDict"
_ENCODE = "_codecs.encode"
_NUMPY_DTYPE = "numpy.dtype"
_NUMPY_SCALAR = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", _NUMPY_DTYPE)
_WITH_STATE = frozenset((_ORDERED, _NUMPY_DTYPE))
_HARMLESS = frozenset(
    (
        *(_ORDERED, "torch.Size", "torch.device", _REBUILD + "parameter"),
        *_STORAGES,
        *_VIEWS,
        *(_ENCODE, *_NUMPY_SCALAR),
    )
)
_SPECIAL_TENSORS = frozenset(
    _REBUILD + kind
    for kind in ("qtensor", "sparse_tensor", "nested_tensor", "meta_tensor_no_storage", "tensor_v3")
)
# What torch.load and its restricted unpickler raise on malformed bytes.
_MALFORMED = (
    UnpicklingError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    EOFError,
    OverflowError,
    MemoryError,
)


@dataclass(frozen=True)
class Storage:
    """A flat array that tensors are views of, as the pickle declares it: key, dtype, elements."""

    key: str
    dtype: torch.dtype
    count: int


class _LeftOut:
    """Stands for a numpy scalar or its dtype beside the weights: takes anything, keeps nothing."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


def check_pickle(opcodes: tuple[Opcode, ...]) -> Walk:
    """Refuse a pickle that does more than building dense tensors inside their storages.

    Raises `InvalidModel`: `pickled_module`, `unsupported_dtype`, `damaged_file`.
    """
    _check_globals(pickle_globals(opcodes))
    seen = walk(opcodes)
    _check_keys(seen.keys)
    for call in seen.calls:
        _check_call(call)
    for target in seen.built:
        if not (isinstance(target, Call) and _name(target.function) in _WITH_STATE):
            raise _unusual("it changes the state of an object")
    return seen


def declared_storages(references: Iterable[Persistent]) -> dict[str, Storage]:
    """Every storage a pickle refers to, by key. Raises `InvalidModel` (`damaged_file`)."""
    storages: dict[str, Storage] = {}
    for reference in references:
        storage = _storage(reference)
        if storages.setdefault(storage.key, storage) != storage:
            raise _unusual("it declares a storage in two ways")
    return storages


def load_weights(stream: IO[bytes]) -> object:
    """What an open file holds, its tensors on the CPU, after `check_pickle` passed its pickles.

    Takes a file and not a path: torch reads a path as another format when it ends in
    `.safetensors`. Raises `InvalidModel` (`damaged_file`).
    """
    stream.seek(0)
    # numpy's own functions never run: a hostile dtype state makes them read out of bounds.
    left_out: list[Callable[..., object] | tuple[Callable[..., object], str]]
    left_out = [(_LeftOut, name) for name in _NUMPY_SCALAR]
    try:
        with torch.serialization.safe_globals(left_out):
            loaded: object = torch.load(stream, map_location="cpu", weights_only=True)
    except _MALFORMED as failure:
        raise damaged(failure) from failure
    return loaded


def damaged(failure: Exception) -> InvalidModel:
    """The refusal of a file whose parser gave up, with its reason in one line."""
    reason = shown(str(failure).split("\n", 1)[0])
    return InvalidModel(
        f"The weights cannot be read ({reason}). "
        "Save them again with torch.save and its default settings, and upload that file.",
        code="damaged_file",
    )


def _check_globals(found: frozenset[str]) -> None:
    special = sorted(found & _SPECIAL_TENSORS)
    if special:
        raise InvalidModel(
            f"The file holds quantised, sparse or otherwise special tensors ({listing(special)}); "
            "save dense floating-point weights.",
            code="unsupported_dtype",
        )
    refused = sorted(found - _HARMLESS)
    if refused:
        raise InvalidModel(
            "This is more than weights, and loading it could run code: its pickle imports "
            f"{listing(refused)}. {SAVE_STATE}",
            code="pickled_module",
        )


def _check_call(call: Call) -> None:
    # A list could be changed after the call, and what is checked here is the end of the walk.
    if not isinstance(call.arguments, tuple):
        raise _unusual("it calls something without a tuple of arguments")
    name = _name(call.function)
    if name in _VIEWS:
        _check_view(call.arguments)
    elif name == _ORDERED:
        _check_ordered(call.arguments)
    elif name == _ENCODE:
        # How protocol 2 writes bytes. Other codecs compress, expand or import.
        match call.arguments:
            case (str(), "latin1"):
                return
        raise _unusual("it encodes text in an unknown way")


def _check_ordered(arguments: tuple[object, ...]) -> None:
    """An ordered dictionary starts empty, or in Python 2 with one list of [key, value]."""
    match arguments:
        case ():
            return
        case ([*pairs],) if all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            _check_keys(pair[0] for pair in pairs if isinstance(pair, list))
        case _:
            raise _unusual("it fills a dictionary in an unknown way")


def _check_keys(keys: Iterable[object]) -> None:
    """Refuse keys that nest: hashing tuples of tuples can take time exponential in their depth."""
    for key in keys:
        items = key if isinstance(key, tuple) else (key,)
        if not all(isinstance(item, _PLAIN) for item in items):
            raise _unusual("a key of a dictionary is no text or number")


def _name(function: object) -> str | None:
    return function.name if isinstance(function, Global) else None


def _check_view(arguments: tuple[object, ...]) -> None:
    """Refuse a tensor that reaches past its storage: torch would enlarge a legacy storage to it."""
    match arguments:
        case (Persistent() as reference, int(offset), tuple(size), tuple(stride), *_):
            count = _storage(reference).count
        case _:
            raise _unusual("it builds a tensor without a storage, an offset, a shape and strides")
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or not all(type(item) is int and item >= 0 for item in numbers):
        raise _unusual("a shape or its strides are no natural numbers")
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if 0 not in size and last >= count:
        raise _unusual(f"a tensor needs {last + 1} elements of a storage that has {count}")


def _storage(reference: Persistent) -> Storage:
    """The storage behind a persistent id.

    It is `("storage", type, key, location, count)`, with a None at the end in the legacy format:
    the place of a view of another storage, which torch no longer writes.
    """
    if isinstance(reference.identifier, tuple):
        match reference.identifier:
            case ("storage", Global(name), str(key), str(), int(count)) | (
                "storage",
                Global(name),
                str(key),
                str(),
                int(count),
                None,
            ) if name in _STORAGES and key.isascii() and type(count) is int and count >= 0:
                return Storage(key, _STORAGES[name], count)
    raise _unusual("it refers to something else than a plain storage")


def _unusual(reason: str) -> InvalidModel:
    return InvalidModel(
        f"The pickle is not one that torch.save writes for weights: {reason}. {SAVE_STATE}",
        code="damaged_file",
    )
