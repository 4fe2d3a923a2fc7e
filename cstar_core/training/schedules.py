"""Learning rates as pure functions of the step, so that a resumed run needs no schedule state."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["cosine", "constant"]


def learning_rate(
    schedule: Schedule, *, base: float, step: int, total_steps: int, warmup_steps: int = 0
) -> float:
    """The rate of `step` (counted from 0): linear warm-up, then constant or half a cosine.

    The cosine is SGDR's without restarts (Loshchilov and Hutter 2017, equation 5), to zero.
    """
    if step < warmup_steps:
        return base * (step + 1) / warmup_steps
    if schedule == "constant":
        return base
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return base * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
