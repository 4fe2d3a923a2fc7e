"""Entry of a runner's companion: `python -m worker.runner.companion FOLDER INDEX SIZE`.

It reads orders from its standard input, one a line, answers each with an event before it goes
through the phase, and ends when the input does.
"""

from __future__ import annotations

import sys
import traceback
from contextlib import suppress
from pathlib import Path

import torch

from cstar_core.pipeline import Interrupted, State, Workbench, phases_of
from cstar_core.pipeline.distributed import FollowersObserver
from cstar_core.training.distributed import joined
from worker.protocol import SPEC_FILE, Event, Spec
from worker.runner.__main__ import judge
from worker.runner.companions import MEETING_FILE, STATE_FILE, Order, device_of
from worker.runner.compression import make_workbench
from worker.runner.confinement import confine, die_with_supervisor
from worker.runner.voice import Voice


def main() -> None:
    """Follow orders until there are no more."""
    die_with_supervisor()
    folder, index, size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    voice = Voice()
    spec = Spec.model_validate_json((folder / SPEC_FILE).read_text())
    confine(memory_bytes=spec.memory_bytes, max_tasks=spec.max_tasks, threads=spec.threads)
    device = device_of(index)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        workbench = make_workbench(spec, folder, device=device)
        for line in sys.stdin:
            follow(Order.model_validate_json(line), workbench, voice, index=index, size=size)
    except Exception as error:
        traceback.print_exc()
        voice.say(judge(error))
        raise SystemExit(1) from error


def follow(order: Order, workbench: Workbench, voice: Voice, *, index: int, size: int) -> None:
    """Go through a phase with the runner; what comes of it is the runner's."""
    state = State.load(order.folder / STATE_FILE)
    (phase,) = (phase for phase in phases_of(workbench.task) if phase.name == order.phase)
    voice.say(Event(name="ready", data={}))
    meeting = order.folder / MEETING_FILE
    device = workbench.device
    with joined(meeting, index=index, size=size, device=device) as world, suppress(Interrupted):
        phase.run(workbench, state, FollowersObserver(world))


if __name__ == "__main__":
    main()
