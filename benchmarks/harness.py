"""Timing: candidates take turns in one process, in processor time, and medians are compared.

Processor time leaves out what other programs on the machine take; taking turns spreads what they
disturb over all candidates alike. Only ratios within one run mean anything.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

FEWEST_ROUNDS, MOST_ROUNDS = 3, 60

Candidates = Mapping[str, Callable[[], object]]


@dataclass(frozen=True)
class Settings:
    """How long to measure each comparison (seconds of processor time), and on what.

    `data` is a folder with `cifar10` and `checkpoints`; without it the digits of the demo serve.
    """

    seconds: float = 20.0
    seed: int = 0
    data: Path | None = None


class Unavailable(Exception):
    """A row cannot be measured here; the message says what to do about it."""


@dataclass(frozen=True)
class Timing:
    """Quartiles of the processor time of one call over `rounds` calls, in milliseconds."""

    median_ms: float
    lower_ms: float
    upper_ms: float
    rounds: int

    @classmethod
    def of(cls, seconds: list[float]) -> Timing:
        """The quartiles of at least two measurements."""
        lower, median, upper = statistics.quantiles(seconds, n=4, method="inclusive")
        return cls(1000 * median, 1000 * lower, 1000 * upper, len(seconds))


def interleave(
    candidates: Candidates, *, seconds: float, warmup: int = 1, fewest: int = FEWEST_ROUNDS
) -> dict[str, Timing]:
    """Time the candidates in turn, round after round, until `seconds` are spent on them.

    At least `fewest` rounds, two or more, and at most `MOST_ROUNDS`, after `warmup` rounds that do
    not count. Each candidate runs on one thread, or its other threads' time counts too.
    """
    for _ in range(warmup):
        _round(candidates)
    rounds: list[dict[str, float]] = []
    spent = 0.0
    while len(rounds) < fewest or (spent < seconds and len(rounds) < MOST_ROUNDS):
        rounds.append(_round(candidates))
        spent += sum(rounds[-1].values())
    return {name: Timing.of([times[name] for times in rounds]) for name in candidates}


def _round(candidates: Candidates) -> dict[str, float]:
    return {name: _processor_time(run) for name, run in candidates.items()}


def _processor_time(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started
