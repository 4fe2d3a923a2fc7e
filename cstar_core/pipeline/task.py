"""What is to be done: one compression, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cstar_core.architectures import Architecture
from cstar_core.attacks import ThreatModel
from cstar_core.pipeline.profiles import Profile


@dataclass(frozen=True)
class Limits:
    """How small the result must be; `ratio` counts all learnable parameters, before / after.

    `max_bytes` counts the tensors of the exported network, `max_latency_ms` one image in
    milliseconds on the device the job runs on.
    """

    ratio: float | None = None
    max_params: int | None = None
    max_macs: int | None = None
    max_bytes: int | None = None
    max_latency_ms: float | None = None


@dataclass(frozen=True)
class Task:
    """A network, the limits and the threat model, and how thoroughly the result is evaluated.

    `method` names an entry of `methods.METHODS`: CSTAR, or a baseline to compare it with.

    `examples` test images are attacked by PGD-20, the first `autoattack_examples` of them by
    AutoAttack; the first `probe_examples` serve the measures beside these figures. Clean accuracy
    is taken on all test images. Accuracies are in [0, 1]. `facts` are passed on to the manifest.
    """

    architecture: Architecture
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_classes: int
    limits: Limits
    threat: ThreatModel
    profile: Profile
    seed: int
    examples: int
    autoattack_examples: int
    probe_examples: int = 256
    min_robust_accuracy: float | None = None
    min_clean_accuracy: float | None = None
    method: str = "cstar"
    facts: Mapping[str, Any] = field(default_factory=dict)
