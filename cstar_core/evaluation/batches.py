"""Batches of examples, and the ledger that lets a long evaluation be stopped and taken up again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor


class Record(TypedDict):
    """What one finished piece of work found: a verdict per example, and codes of warnings."""

    correct: list[bool]
    flags: list[str]


# Finished pieces by name; plain JSON data, so that the caller can store it in a checkpoint.
Completed = MutableMapping[str, Record]


@dataclass(frozen=True)
class BatchDone:
    """One piece of an evaluation is finished: `done` of `total`, and what it found."""

    name: str
    done: int
    total: int
    record: Record


OnBatch = Callable[[BatchDone], None]


class Ledger:
    """Runs each named piece once: pieces found in `completed` are recalled, not repeated."""

    def __init__(
        self, total: int, *, completed: Completed | None = None, on_batch: OnBatch | None = None
    ) -> None:
        self.completed: Completed = {} if completed is None else completed
        self.total, self.done, self.on_batch = total, 0, on_batch

    def recall_or(self, name: str, compute: Callable[[], Record]) -> Record:
        """The record of piece `name`, computed and reported unless it is already known."""
        self.done += 1
        if name not in self.completed:
            self.completed[name] = compute()
            if self.on_batch is not None:
                self.on_batch(BatchDone(name, self.done, self.total, self.completed[name]))
        return self.completed[name]


def unit_interval(images: Tensor) -> Tensor:
    """Images as float32 in [0, 1]: uint8 is divided by 255, floats pass unchanged."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


def batch_slices(n: int, batch_size: int) -> Iterator[slice]:
    """Consecutive slices that cover range(n). ValueError unless batch_size >= 1."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    return (slice(start, min(start + batch_size, n)) for start in range(0, n, batch_size))
