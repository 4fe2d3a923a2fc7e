"""What an evaluation has found so far, kept in one file so that a killed one goes on from there."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FORMAT = "cstar-evaluation-state"
VERSION = 1
FILE = "state.json"


class OtherSettings(Exception):
    """The folder holds an evaluation carried out otherwise; the message says what to do."""


@dataclass
class Kept:
    """Ledgers by case, `folders` of the reports by case; `path` None keeps nothing.

    `settings` is everything the figures depend on but the networks, which the cases name.
    """

    path: Path | None
    settings: Mapping[str, Any]
    ledgers: dict[str, dict[str, Any]] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path | None, settings: Mapping[str, Any], *, restart: bool) -> Kept:
        """What lies in `folder`, or nothing yet; raises OtherSettings, also for a foreign file."""
        path = None if folder is None else folder / FILE
        if path is None or restart or not path.exists():
            return cls(path, settings)
        content = _read(path)
        if content["settings"] != settings:
            differing = _differences(content["settings"], settings)
            raise OtherSettings(
                f"{path.parent} holds an evaluation with other settings ({differing}); choose "
                "another --output, or pass --restart to begin anew there"
            )
        return cls(path, settings, content["ledgers"], content["folders"])

    def case(self, after: str, before: str | None) -> MutableMapping[str, Any]:
        """The ledgers of a case, named by its networks' identities; a baseline serves all cases."""
        ledgers = self.ledgers.setdefault(f"{after}/{before}", {})
        if before is not None:
            ledgers["before"] = self.ledgers.setdefault(before, {})
        return ledgers

    def folder_of(self, case: str, wanted: str) -> str:
        """The name of a case's folder: `wanted`, or with a number where another case has that."""
        if case not in self.folders:
            numbered = (wanted if n == 1 else f"{wanted}-{n}" for n in range(1, 1 << 30))
            taken = set(self.folders.values())
            self.folders[case] = next(name for name in numbered if name not in taken)
        return self.folders[case]

    def save(self) -> None:
        """Write atomically: a crash leaves the old file or the new one, never half of one."""
        if self.path is None:
            return
        content = {
            "format": FORMAT,
            "version": VERSION,
            "settings": self.settings,
            "folders": self.folders,
            "ledgers": self.ledgers,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("w") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        known = (content["format"], content["version"]) == (FORMAT, VERSION)
    except (ValueError, LookupError, TypeError):
        known = False
    if not known:
        raise OtherSettings(f"{path} is no state of this command; choose another --output")
    return content


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    names = [name for name in now if then.get(name) != now[name]]
    return ", ".join(f"{name} {then.get(name)}, now {now[name]}" for name in names)
