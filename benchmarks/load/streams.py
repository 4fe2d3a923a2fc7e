"""Reading an event stream (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Told:
    """One message; `seq` is its id, None for what is not repeated (metrics and progress)."""

    type: str
    seq: int | None
    data: Any


def told(lines: Iterable[str]) -> Iterator[Told]:
    """Parse the lines of a stream of the service, whose data is one line of JSON."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        elif fields:
            if "data" in fields:
                seq = int(fields["id"]) if "id" in fields else None
                yield Told(fields["event"], seq, json.loads(fields["data"]))
            fields = {}
