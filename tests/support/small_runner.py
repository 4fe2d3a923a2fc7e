"""A runner whose work is a chain of hashes: small, deterministic, and resumed where it was saved.

Run as `python -I -S -c TEXT FOLDER`, with the real protocol and nothing but the standard library.
Its standard error is a log outside of the job's folder and of the database: one line for every
start, step and end, with what names the process and the machine's monotonic clock.
"""

import ctypes
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

STEPS_A_PHASE = 10
STEPS_A_CHECKPOINT = 4
PHASES = ("planning", "admm", "fine_tuning", "evaluating")
STEPS = STEPS_A_PHASE * len(PHASES)
OUTPUT = "model.safetensors"

folder = Path(sys.argv[-1])
me = {"attempt": folder.name, "process": os.urandom(8).hex()}
stopping: list[bool] = []


def link(chain: str, step: int) -> str:
    """Return the next value of a chain."""
    return hashlib.sha256(f"{chain} {step}".encode()).hexdigest()


def stamp(what: str, step: int) -> None:
    line = json.dumps({**me, "what": what, "step": step, "at": time.monotonic()})
    os.write(2, line.encode() + b"\n")


def say(kind: str, **values: object) -> None:
    os.write(1, json.dumps({"type": kind, **values}).encode() + b"\n")


def save(state: dict, *, phase: str, finished: bool) -> None:
    temporary = folder / "checkpoint.new"
    temporary.write_text(json.dumps(state))
    temporary.rename(folder / "checkpoint.pt")
    say("checkpoint", phase=phase, finished=finished)


def resume(seed: int) -> dict:
    saved = folder / "checkpoint.pt"
    return json.loads(saved.read_text()) if saved.exists() else {"chain": str(seed), "step": 0}


def wait(step: int, step_s: float, *, held: bool) -> None:
    """Wait for as long as a step takes, or while it is held until SIGTERM comes."""
    while not (heard := signal.sigtimedwait({signal.SIGTERM}, step_s)) and held:
        stamp("held", step)
    if heard:
        stopping.append(True)


def take_step(state: dict, step_s: float, *, held: bool) -> None:
    step = state["step"]
    phase = PHASES[step // STEPS_A_PHASE]
    say("progress", phase=phase, progress=step / STEPS)
    stamp("step", step)
    wait(step, step_s, held=held)
    state.update(chain=link(state["chain"], step), step=step + 1)
    finished = state["step"] % STEPS_A_PHASE == 0
    if finished or state["step"] % STEPS_A_CHECKPOINT == 0:
        save(state, phase=phase, finished=finished)


def main() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    stamp("start", 0)
    request = json.loads((folder / "spec.json").read_text())["request"]
    labels = request["labels"]
    state, step_s = resume(request["seed"]), float(labels["step_s"])
    held_at = int(labels["hold_at"]) if folder.name.endswith(".1") else None
    while state["step"] < STEPS and not stopping:
        take_step(state, step_s, held=state["step"] == held_at)
    if state["step"] < STEPS:
        save(state, phase=PHASES[state["step"] // STEPS_A_PHASE], finished=False)
        stamp("end", state["step"])
        say("stopped")
        return
    (folder / "output" / OUTPUT).write_text(state["chain"])
    stamp("end", state["step"])
    file = {"kind": "checkpoint", "filename": OUTPUT, "media_type": "text/plain"}
    say("result", result={"chain": state["chain"]}, files=[file])


if __name__ == "__main__":
    main()
