"""Walk through a pickle with values that do nothing, to see what loading it would call, with what.

The stack and the memo are those of the real machine; a global stays a name, a call stays a record
of itself, and dictionaries keep nothing. Only the opcodes are known that `torch.save` writes for
weights, which is protocol 2 without new objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cstar_core.errors import InvalidModel
from cstar_core.files.pickle_opcodes import Opcode


@dataclass(frozen=True)
class Global:
    """A dotted name that loading would look up."""

    name: str


# Compared by identity: equality of what a hostile pickle nests can take exponential time.
@dataclass(frozen=True, eq=False)
class Call:
    """A call that loading would make."""

    function: object
    arguments: object


@dataclass(frozen=True, eq=False)
class Persistent:
    """A reference to something outside the pickle, which for torch is a storage."""

    identifier: object


@dataclass(frozen=True, eq=False)
class Walk:
    """What was seen: the pickle's value, calls, objects given a state, references, keys set."""

    value: object
    calls: list[Call]
    built: list[object]
    references: list[Persistent]
    keys: list[object]


def walk(opcodes: Iterable[Opcode]) -> Walk:
    """Walk to the end. Raises `InvalidModel` (`damaged_file`) for a pickle torch does not write."""
    machine = _Machine()
    try:
        for opcode, argument in opcodes:
            if opcode in _LITERALS:
                machine.push(argument)
            else:
                _ACTIONS[opcode](machine, argument)
        value = machine.stack[-1]
    except (LookupError, ValueError) as failure:
        raise InvalidModel(
            "The pickle in the file is not one that torch.save writes with its default settings; "
            "save the weights again: torch.save(model.state_dict(), path).",
            code="damaged_file",
        ) from failure
    return Walk(value, machine.calls, machine.built, machine.references, machine.keys)


@dataclass
class _Machine:
    """Stack, what was on it below each MARK, memo, and what was seen so far."""

    stack: list[object] = field(default_factory=list)
    below: list[list[object]] = field(default_factory=list)
    memo: dict[int, object] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    built: list[object] = field(default_factory=list)
    references: list[Persistent] = field(default_factory=list)
    keys: list[object] = field(default_factory=list)

    def protocol(self, version: object) -> None:
        if version != 2:
            raise ValueError("not protocol 2")

    def push(self, value: object) -> None:
        self.stack.append(value)

    def mark(self, _: None) -> None:
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[object]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def take(self, count: int) -> tuple[object, ...]:
        return tuple(reversed([self.stack.pop() for _ in range(count)]))

    def get(self, place: int) -> None:
        self.push(self.memo[place])

    def put(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def extend(self, items: Iterable[object]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise ValueError("appends to something else than a list")
        target.extend(items)

    def set_items(self, items: Sequence[object]) -> None:
        self.keys.extend(items[::2])

    def call(self, _: None) -> None:
        seen = Call(*self.take(2))
        self.calls.append(seen)
        self.push(seen)

    def build(self, _: None) -> None:
        self.take(1)
        self.built.append(self.stack[-1])

    def refer(self, _: None) -> None:
        seen = Persistent(*self.take(1))
        self.references.append(seen)
        self.push(seen)


_LITERALS = frozenset(
    ("NONE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING")
)
_MAPPING = object()
_ACTIONS: dict[str, Callable[[_Machine, Any], object]] = {
    "PROTO": _Machine.protocol,
    "STOP": lambda _machine, _: None,
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "MARK": _Machine.mark,
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push(_MAPPING),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: machine.push(machine.take(1)),
    "TUPLE2": lambda machine, _: machine.push(machine.take(2)),
    "TUPLE3": lambda machine, _: machine.push(machine.take(3)),
    "APPEND": lambda machine, _: machine.extend(machine.take(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.set_items(machine.take(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    "GLOBAL": lambda machine, name: machine.push(Global(name.replace(" ", "."))),
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.refer,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
}
