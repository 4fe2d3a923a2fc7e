"""Times of single factors, kept in this process and, on request, in a file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from cstar_core.layers import Layer

_IN_PROCESS: dict[str, dict[str, int]] = {}  # environment -> geometry -> nanoseconds


class TimingCache:
    """Nanoseconds of nameless layers in one `environment`, as JSON in `folder` if that is given.

    The file is named by the environment, so that machines may share a folder. A file that is not
    such a cache raises ValueError.
    """

    def __init__(self, environment: str, folder: Path | None) -> None:
        self._times = _IN_PROCESS.setdefault(environment, {})
        name = hashlib.sha256(environment.encode()).hexdigest()[:16]
        self._path = folder and folder / f"layer-times-{name}.json"
        self._environment = environment
        if self._path and self._path.exists():
            self._times.update(self._read(self._path))

    def __contains__(self, layer: Layer) -> bool:
        return _key(layer) in self._times

    def __getitem__(self, layer: Layer) -> int:
        return self._times[_key(layer)]

    def add(self, times: Mapping[Layer, int]) -> None:
        """Keep these times, and write the file anew if there is one."""
        self._times.update({_key(layer): value for layer, value in times.items()})
        if self._path:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            content = {"environment": self._environment, "nanoseconds": self._times}
            partial = self._path.with_suffix(f".{os.getpid()}")
            partial.write_text(json.dumps(content, indent=1, sort_keys=True))
            partial.replace(self._path)

    def _read(self, path: Path) -> dict[str, int]:
        try:
            times: dict[str, int] = json.loads(path.read_text())["nanoseconds"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path.name} is not a cache of layer times; delete it") from error
        return times


def _key(layer: Layer) -> str:
    return json.dumps(asdict(layer), sort_keys=True)
