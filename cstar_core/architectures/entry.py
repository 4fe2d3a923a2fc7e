"""What an architecture is to this package: a name with arguments, and the entry that builds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from cstar_core.errors import InvalidModel

Value = int | bool | str
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Architecture:
    """A network by name, with the arguments that differ from its defaults or all of them."""

    name: str
    arguments: dict[str, Value] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The JSON object `{"name": ..., "arguments": {...}}`."""
        return {"name": self.name, "arguments": dict(self.arguments)}

    @classmethod
    def from_json(cls, value: object) -> Architecture:
        """The inverse of `to_json`; `arguments` may be absent.

        Raises `InvalidModel` (`invalid_arguments`) for anything of another form.
        """
        fields = value if isinstance(value, Mapping) else {}
        name, arguments = fields.get("name"), fields.get("arguments", {})
        if not isinstance(name, str) or not _are_arguments(arguments):
            raise InvalidModel(
                'Give the architecture as {"name": "...", "arguments": {...}}, '
                "the arguments being integers, booleans or strings.",
                code="invalid_arguments",
            )
        return cls(name, dict(arguments))


def _are_arguments(arguments: object) -> bool:
    return isinstance(arguments, Mapping) and all(
        isinstance(name, str) and isinstance(value, int | str) for name, value in arguments.items()
    )


@dataclass(frozen=True)
class Argument:
    """One argument of an architecture: its default, how weights tell it, and how large it may be.

    `infer` reads the value off the shapes of a state dictionary; it may raise `LookupError`.
    Integers lie in 1 .. `maximum`.
    """

    default: Value
    infer: Callable[[Shapes], Value]
    maximum: int = 1024

    def accepts(self, value: object) -> bool:
        """Whether a value has the type of the default and lies in its range."""
        if type(value) is not type(self.default):
            return False
        return not isinstance(value, int) or isinstance(value, bool) or 1 <= value <= self.maximum

    def __str__(self) -> str:
        kind = type(self.default).__name__
        span = f" 1..{self.maximum}" if kind == "int" else ""
        return f"{kind}{span}, default {self.default}"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One architecture of the registry.

    `make` takes the arguments by keyword. `stem` and `classifier` name the first convolution and
    the last linear layer; `input_shape` (C, H, W) is the usual one, for documentation and examples.
    """

    name: str
    summary: str
    make: Callable[..., nn.Module]
    arguments: Mapping[str, Argument]
    stem: str
    classifier: str
    input_shape: tuple[int, int, int]


def size(key: str, axis: int) -> Callable[[Shapes], int]:
    """Infer an argument as the size of one axis of one tensor."""
    return lambda shapes: shapes[key][axis]


def present(key: str) -> Callable[[Shapes], bool]:
    """Infer an argument as whether a tensor is there."""
    return lambda shapes: key in shapes


def common_arguments(
    *, stem: str, classifier: str, width: int, classes: int
) -> dict[str, Argument]:
    """`width` (channels of the stem), `in_channels` and `num_classes`, as most networks have them.

    `stem` and `classifier` are module names.
    """
    return {
        "width": Argument(width, size(f"{stem}.weight", 0), maximum=512),
        "in_channels": Argument(3, size(f"{stem}.weight", 1), maximum=64),
        "num_classes": Argument(classes, size(f"{classifier}.weight", 0), maximum=100_000),
    }
