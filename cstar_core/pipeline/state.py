"""Everything a run needs to go on after an interruption: tensors and plain values only."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FORMAT = 1


@dataclass
class State:
    """Grows from phase to phase; `training` holds the trainer of the phase in progress.

    `dense` are the weights of the dense network, `teacher` those it had before ADMM, where a later
    phase distils from them, `factorised` those of the compressed one once there is one, `plan` the
    plan as JSON data, `findings` what the report will say, by phase, `verdicts` the finished
    pieces of the evaluation by its name.
    """

    finished: list[str] = field(default_factory=list)
    dense: dict[str, Tensor] = field(default_factory=dict)
    teacher: dict[str, Tensor] = field(default_factory=dict)
    factorised: dict[str, Tensor] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    admm_targets: dict[str, Tensor] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    verdicts: dict[str, Any] = field(default_factory=dict)
    findings: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write atomically: a crash leaves the old file or the new one, never half of one."""
        temporary = path.with_suffix(".tmp")
        content = {name: getattr(self, name) for name in _names()}
        with temporary.open("wb") as file:
            torch.save({"format": FORMAT, **content}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> State:
        """Read what `save` wrote; raises ValueError for another format."""
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content.get("format") != FORMAT:
            raise ValueError(f"checkpoint format {content.get('format')}, expected {FORMAT}")
        # A field that was added since the file was written starts empty.
        return cls(**{name: content[name] for name in _names() if name in content})


def _names() -> list[str]:
    return [field.name for field in fields(State)]
