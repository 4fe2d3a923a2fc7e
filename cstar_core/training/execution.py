"""How a run is executed: in which precision, compiled or not, and what of the wishes was refused.

bfloat16 and compilation pay on a GPU only: on a CPU without the units bfloat16 is many times
slower and compilation gains next to nothing, so there both fall back, and the notes say so.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import nn

from cstar_core.training.config import Precision, TrainingConfig


@dataclass(frozen=True)
class Execution:
    """What runs on `device`; `notes` name every wish that could not be granted, and why."""

    device: str
    precision: Precision
    compiled: bool
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: TrainingConfig, device: torch.device) -> Execution:
        """As `config` asks, as far as `device` supports it."""
        bfloat16, compiled = config.precision == "bfloat16", config.compile
        no_bfloat16 = _why_no_bfloat16(device) if bfloat16 else ""
        no_compiling = _why_no_compiling(device) if compiled else ""
        return cls(
            device=device.type,
            precision="bfloat16" if bfloat16 and not no_bfloat16 else "float32",
            compiled=compiled and not no_compiling,
            notes=tuple(note for note in (no_bfloat16, no_compiling) if note),
        )

    def to_json(self) -> dict[str, Any]:
        """What ran, as a report states it."""
        return asdict(self) | {"notes": list(self.notes)}

    def autocast(self) -> torch.autocast:
        """The context of one forward pass.

        Enter it anew for every pass: while it is open, autocast keeps its casts of the weights,
        and would not see that they have changed.
        """
        enabled = self.precision == "bfloat16"
        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=enabled)

    def compiled_network(self, network: nn.Module) -> nn.Module:
        """`network`, behind the compiler where that is on; both share their weights."""
        if not self.compiled:
            return network
        return cast(nn.Module, torch.compile(network))


def _why_no_bfloat16(device: torch.device) -> str:
    if device.type != "cuda":
        return f"bfloat16 falls back to float32: it needs a CUDA device, this is {device.type}"
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        return "bfloat16 falls back to float32: this GPU has no units for it"
    return ""


def _why_no_compiling(device: torch.device) -> str:
    if device.type != "cuda":
        return f"compilation is off: it needs a CUDA device, this is {device.type}"
    if importlib.util.find_spec("triton") is None:
        return "compilation is off: it needs Triton, which is not installed"
    if not any(shutil.which(name) for name in (os.environ.get("CC", ""), "cc", "gcc", "clang")):
        return "compilation is off: Triton needs a C compiler; install one or set CC"
    return ""
