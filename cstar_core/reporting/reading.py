"""A report's JSON as its renderers read it: anything may be missing, nothing makes them fail."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


class Part:
    """A value within a report; what is missing, or of another type than asked for, is empty.

    `part("evaluation", "after")` goes down by keys, each a member of the one before. True when
    there is anything to read.
    """

    def __init__(self, value: object = None) -> None:
        self._value = value

    def __bool__(self) -> bool:
        return self._value is not None and self._value not in ("", [], {})

    def part(self, *path: str) -> Part:
        """The value at `path`."""
        value = self._value
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return Part(value)

    def parts(self, *path: str) -> tuple[Part, ...]:
        """The items of the list at `path`."""
        value = self.part(*path)._value
        if isinstance(value, str) or not isinstance(value, Sequence):
            return ()
        return tuple(Part(item) for item in value)

    def members(self, *path: str) -> tuple[tuple[str, Part], ...]:
        """The keys and values of the object at `path`."""
        value = self.part(*path)._value
        if not isinstance(value, Mapping):
            return ()
        return tuple((str(key), Part(item)) for key, item in value.items())

    def number(self, *path: str) -> float | None:
        """The number at `path`, if it is finite; a truth value is not a number."""
        value = self.part(*path)._value
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        try:
            return float(value) if math.isfinite(value) else None
        except OverflowError:  # an integer beyond the largest float
            return None

    def whole(self, *path: str) -> int | None:
        """The whole number at `path`, exactly: a seed may be larger than a float can tell."""
        value = self.part(*path)._value
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def truth(self, *path: str) -> bool | None:
        """True, False, or None where neither is said."""
        value = self.part(*path)._value
        return value if isinstance(value, bool) else None

    def text(self, *path: str) -> str:
        """The string at `path`, without characters that no document may hold."""
        value = self.part(*path)._value
        if not isinstance(value, str):
            return ""
        return "".join(c for c in value if c.isprintable() or c in "\n\t").strip()

    def interval(self, *path: str) -> tuple[float, float] | None:
        """The two numbers at `path`."""
        ends = [item.number() for item in self.parts(*path)]
        if len(ends) != 2 or ends[0] is None or ends[1] is None:
            return None
        return ends[0], ends[1]

    def numbers(self, *path: str) -> tuple[float | None, ...]:
        """The list at `path`, with None where an item is not a number."""
        return tuple(item.number() for item in self.parts(*path))
