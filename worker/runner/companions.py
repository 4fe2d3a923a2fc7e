"""Further processes of a runner, with which it trains on several GPUs.

The runner leads: it starts a companion for each further GPU before the first training phase, and
orders all of them to go through each training phase with it. What they share is one group of
torch.distributed for each phase; everything else is the runner's alone.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import IO

import torch
from pydantic import BaseModel

from cstar_core.errors import CstarError
from cstar_core.pipeline import Interrupted, Observer, State, Workbench
from cstar_core.pipeline.distributed import LeadersObserver
from cstar_core.pipeline.run import Phase
from cstar_core.training.distributed import World, joined
from worker.protocol import AnyMessage, Event, Failure, decode
from worker.runner.__main__ import judge
from worker.runner.voice import Voice

PROCESSES = "CSTAR_RUNNER_PROCESSES"
GRACE_S = 10.0  # for the runner to notice by itself that a companion has ended
STATE_FILE = "state.pt"
MEETING_FILE = "meeting"


class Order(BaseModel):
    """Go through a phase from the state in `folder`, together with those who meet there."""

    phase: str
    folder: Path


class CompanionLost(Exception):
    """A process that trains with the runner has ended."""


def wanted_processes() -> int:
    """CSTAR_RUNNER_PROCESSES, else one for each GPU that is visible, or one on the CPU.

    Raises ValueError for a number that is no number of processes, or above that of the GPUs.
    """
    devices = torch.cuda.device_count()
    wanted = int(os.environ.get(PROCESSES) or max(1, devices))
    if wanted < 1 or wanted > devices > 0:
        raise ValueError(f"{PROCESSES}={wanted}, but {devices} GPUs are visible; set 1 to that")
    return wanted


def device_of(index: int) -> torch.device:
    """Return the device of the process with that index."""
    return torch.device("cuda", index) if torch.cuda.is_available() else torch.device("cpu")


@dataclass(frozen=True)
class Companion:
    """A process that follows the runner; orders go to its stdin, its words come from its stdout."""

    index: int
    process: subprocess.Popen[bytes]
    orders: IO[bytes]
    words: IO[bytes]

    @classmethod
    def start(cls, folder: Path, *, index: int, size: int) -> Companion:
        """Start a companion, which SIGTERM does not reach: to stop is the runner's decision."""
        command = [sys.executable, "-m", "worker.runner.companion", str(folder)]
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # and so it is inherited
        try:
            process = subprocess.Popen(
                [*command, str(index), str(size)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "CSTAR_SUPERVISOR_PID": str(os.getpid())},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        assert process.stdin is not None
        assert process.stdout is not None
        return cls(index, process, process.stdin, process.stdout)

    def order(self, order: Order) -> None:
        """Give an order; a companion that has ended is found out when its answer is awaited."""
        with suppress(BrokenPipeError):
            self.orders.write(order.model_dump_json().encode() + b"\n")
            self.orders.flush()

    def await_answer(self) -> None:
        """Wait until the order has been understood. Raises what the companion has died of."""
        if not isinstance(said := self._next_word(), Event):
            raise self._died_of(said)

    def loss(self) -> Exception:
        """Return what the companion, which has ended, has died of."""
        return self._died_of(self._next_word())

    def end(self) -> None:
        """End the process and let go of its pipes."""
        self.process.kill()
        self.process.wait()
        self.words.close()
        with suppress(BrokenPipeError):  # an order may be left in the buffer
            self.orders.close()

    def _next_word(self) -> AnyMessage | None:
        line = self.words.readline()
        return decode(line) if line else None

    def _died_of(self, said: AnyMessage | None) -> Exception:
        if isinstance(said, Failure):
            known = MemoryError if said.code == "out_of_memory" else CompanionLost
            return known(f"process {self.index} of this job failed: {said.message}")
        status = self.process.wait()
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        return CompanionLost(f"process {self.index} of this job was ended {how}")


class Companions:
    """The companions of one runner, started when first needed; none is left at exit."""

    def __init__(self, folder: Path, *, size: int, voice: Voice) -> None:
        self._folder, self._size, self._voice = folder, size, voice
        self._companions: list[Companion] = []
        self._rooms: list[Path] = []  # where they met
        self._ended: SimpleQueue[Companion] = SimpleQueue()
        self._apart = threading.Event()  # set while no phase is gone through together
        self._apart.set()

    def __enter__(self) -> Companions:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._apart.set()
        for companion in self._companions:
            companion.end()
        for room in self._rooms:  # only now: who leaves a group writes to its meeting once more
            shutil.rmtree(room)

    def accompany(self, phases: Sequence[Phase]) -> tuple[Phase, ...]:
        """Return the phases, those that train made to be gone through by all processes."""
        if self._size == 1:
            return tuple(phases)
        return tuple(
            replace(phase, run=partial(self._run, phase)) if phase.trains else phase
            for phase in phases
        )

    def _run(self, phase: Phase, workbench: Workbench, state: State, observer: Observer) -> None:
        room = Path(tempfile.mkdtemp(prefix="together.", dir=self._folder))
        self._rooms.append(room)
        state.save(room / STATE_FILE)
        with self._together(Order(phase=phase.name, folder=room)) as world:
            observer.event("training.shared", {"phase": phase.name, "processes": world.size})
            phase.run(workbench, state, LeadersObserver(observer, world))
        (room / STATE_FILE).unlink()

    @contextmanager
    def _together(self, order: Order) -> Iterator[World]:
        """Meet the companions for a phase; raises what has ended one, if that is why we fail."""
        self._apart.clear()
        try:
            self._gather(order)
            meeting = order.folder / MEETING_FILE
            with joined(meeting, index=0, size=self._size, device=device_of(0)) as world:
                try:
                    yield world
                except (CstarError, Interrupted):  # in all processes alike
                    raise
                except Exception as error:  # while those that have not ended still wait for us
                    if (lost := self._lost()) is None:
                        raise
                    raise lost from error
        finally:
            self._apart.set()

    def _gather(self, order: Order) -> None:
        if not self._companions:
            self._start()
        for companion in self._companions:
            companion.order(order)
        for companion in self._companions:
            companion.await_answer()

    def _start(self) -> None:
        for index in range(1, self._size):
            companion = Companion.start(self._folder, index=index, size=self._size)
            self._companions.append(companion)
            threading.Thread(target=self._watch, args=[companion], daemon=True).start()

    def _lost(self) -> Exception | None:
        try:
            return self._ended.get(timeout=GRACE_S / 2).loss()
        except Empty:
            return None

    def _watch(self, companion: Companion) -> None:
        """Wait for a companion's end; a runner that hangs for the want of it says so and ends."""
        companion.process.wait()
        self._ended.put(companion)
        if not self._apart.wait(GRACE_S):
            self._voice.say(judge(companion.loss()))
            os._exit(1)
