"""How names found in a file are shown in an error message: few, short and printable."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

LONGEST_NAME = 96


def shown(name: str) -> str:
    """One name with its control characters escaped, cut to 96 characters."""
    printable = name.encode("unicode_escape").decode("ascii")
    return printable if len(printable) <= LONGEST_NAME else printable[: LONGEST_NAME - 3] + "..."


def listing(names: Iterable[str], *, limit: int = 8) -> str:
    """The first `limit` names, and how many more there are: "a, b and 3 more"."""
    remaining = iter(names)
    first = [shown(name) for name in islice(remaining, limit)]
    more = sum(1 for _ in remaining)
    text = ", ".join(first) if first else "none"
    return f"{text} and {more} more" if more else text
