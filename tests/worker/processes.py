"""Waiting for processes that were started as a runner is, and runners that disturb themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.worker.shop import PATIENCE_S
from worker import executors

DISTURBED = """
import os, runpy, signal, sys
from worker.protocol import Event, Metric
from worker.runner.voice import Voice
say = Voice.say
def say_and_act(voice, message):
    say(voice, message)
    if {when}: {act}
Voice.say = say_and_act
sys.argv = ["worker.runner", {folder!r}]
runpy.run_module("worker.runner", run_name="__main__")
"""


def disturbed(folder: Path, *, when: str, act: str) -> list[str]:
    """Return the command of a runner that acts at once when it has said a certain `message`.

    Whoever reads that message and acts then may be late.
    """
    return [sys.executable, "-c", DISTURBED.format(when=when, act=act, folder=str(folder))]


def finish(process: subprocess.Popen[bytes]) -> bytes:
    """Return what a process has said once it has ended, which it must do well."""
    assert process.stdout is not None
    with process.stdout as pipe:
        said = pipe.read()
    assert executors.end(process, patience_s=PATIENCE_S) == 0
    return said
