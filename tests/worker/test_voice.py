"""The runner's end of the pipe, and what the pipeline's observer says through it."""

from __future__ import annotations

import math
import os
import signal
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from cstar_core.pipeline import PHASES, State
from cstar_core.pipeline.run import overall
from tests.worker.processes import finish
from tests.worker.shop import PATIENCE_S
from worker import executors
from worker.protocol import (
    CheckpointSaved,
    Event,
    Message,
    Metric,
    Progress,
    Span,
    Stopped,
    decode,
)
from worker.runner.observer import RunnerObserver
from worker.runner.voice import Voice

CHATTER = """
import os
from worker.protocol import Event, Stopped
from worker.runner.voice import Voice
print("before", flush=True)
voice = Voice()
print("a library prints", flush=True)
os.write(1, b"so does its C part")
voice.say(Event(name="long", data={"text": "x" * 300_000}))
voice.say(Stopped())
"""
TRACED = """
from worker.protocol import Progress, Stopped
from worker.runner.voice import Voice
voice = Voice()
voice.trace("importing")
voice.turn_to("compress")
for phase in ("checking", "checking", "admm"):
    voice.say(Progress(phase=phase, progress=0.5))
voice.say(Stopped())
"""
ALONE = """
import sys
from worker.protocol import Stopped
from worker.runner.voice import Voice
voice = Voice()
sys.stdin.read()
while True: voice.say(Stopped())
"""


@pytest.mark.usefixtures("plain")
def test_what_libraries_print_goes_to_the_log_and_messages_arrive_whole(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHATTER]
    process = executors.start_confined(command, tmp_path, tmp_path / "runner.log")
    before, *lines = finish(process).splitlines()

    assert before == b"before"
    assert [decode(line) for line in lines] == [
        Event(name="long", data={"text": "x" * 300_000}),
        Stopped(),
    ]
    assert (tmp_path / "runner.log").read_text() == "a library prints\nso does its C part"


@pytest.mark.usefixtures("plain")
def test_a_runner_whose_supervisor_has_gone_away_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ALONE]
    process = executors.start_confined(command, tmp_path, tmp_path / "runner.log")
    assert process.stdout is not None
    process.stdout.close()

    assert executors.end(process, patience_s=PATIENCE_S) == 1
    assert "BrokenPipeError" in (tmp_path / "runner.log").read_text()


class Heard(Voice):
    """A voice into a list."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def say(self, message: Message) -> None:
        self.messages.append(message)


Observe = Callable[[float], RunnerObserver]


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def observe(heard: Heard, tmp_path: Path) -> Iterator[Observe]:
    """Make an observer that saves within a phase every so many seconds."""
    handler = signal.getsignal(signal.SIGTERM)
    yield lambda interval_s: RunnerObserver(
        heard, tmp_path / "checkpoint.pt", save_interval_s=interval_s, overall=overall
    )
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def observer(observe: Observe) -> RunnerObserver:
    return observe(math.inf)


def test_progress_is_said_at_once_in_a_new_phase_and_seldom_within_it(
    observer: RunnerObserver, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.runner.observer.PROGRESS_INTERVAL_S", math.inf)
    first, second = (phase.name for phase in PHASES[:2])
    for fraction in (0.0, 0.1, 0.2):
        observer.progress(first, fraction)
    observer.progress(second, 0.0)

    said = [message for message in heard.messages if isinstance(message, Progress)]
    assert [message.phase for message in said] == [first, second]
    assert 0.0 == said[0].progress < said[1].progress < 1.0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_no_metric(
    observer: RunnerObserver, heard: Heard, value: float
) -> None:
    observer.metric("admm", "gap", value, step=1)
    observer.metric("admm", "gap", 0.5, step=2)

    assert heard.messages == [Metric(phase="admm", name="gap", step=2, value=0.5)]


def test_a_checkpoint_is_there_when_it_is_announced(
    observer: RunnerObserver, heard: Heard, tmp_path: Path
) -> None:
    observer.save("planning", State(), finished=True)

    assert heard.messages == [CheckpointSaved(phase="planning", finished=True)]
    assert State.load(tmp_path / "checkpoint.pt").finished == []


@pytest.mark.parametrize(("interval_s", "due"), [(0.0, True), (math.inf, False)])
def test_saving_is_due_when_the_interval_is_over(
    observe: Observe, interval_s: float, due: bool
) -> None:
    assert observe(interval_s).save_due() is due


def test_sigterm_asks_for_a_stop(observer: RunnerObserver) -> None:
    assert not observer.stop_requested()
    os.kill(os.getpid(), signal.SIGTERM)

    assert observer.stop_requested()


@pytest.mark.usefixtures("plain")
def test_each_part_of_the_work_is_measured_before_the_last_word(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TRACED]
    process = executors.start_confined(command, tmp_path, tmp_path / "runner.log")
    said = [decode(line) for line in finish(process).splitlines()]
    spans = [message for message in said if isinstance(message, Span)]

    assert [span.name for span in spans] == ["importing", "compress", "checking", "admm"]
    assert said[-2:] == [spans[-1], Stopped()]
    for before, after in pairwise(spans):
        assert before.started_ns <= before.ended_ns == after.started_ns
