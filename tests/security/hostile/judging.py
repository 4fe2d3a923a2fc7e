"""`python -m tests.security.hostile.judging FOLDER`: every hostile file before a confined runner.

Torch is loaded once; each file is judged in a fork that first does to itself what a runner does.
Leaves FOLDER/<number>/sent (the file) and FOLDER/<number>/verdict.json.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from store.contracts import DatasetRequest, ModelRequest
from tests.security.hostile.files import HOSTILE, MEBIBYTE, Hostile
from worker.protocol import Message, Result, Spec
from worker.runner.confinement import confine
from worker.runner.validation import validate_dataset, validate_model
from worker.runner.voice import Voice

MEMORY_BYTES = 4096 * MEBIBYTE  # address space; torch alone takes two thirds of it
INPUT = {"shape": [1, 8, 8], "mean": [0.5], "std": [0.25]}


@dataclass(frozen=True)
class Verdict:
    """How it ended: the code of the reason, the exit status, what it took and what it left."""

    code: str | None
    status: int
    seconds: float
    growth_bytes: int
    left: list[str]


class Pen(Voice):
    """A voice into a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def say(self, message: Message) -> None:
        assert isinstance(message, Result)
        self._path.write_text(json.dumps(message.result))


def judge(hostile: Hostile, folder: Path) -> Verdict:
    """Judge a file in a process of its own."""
    (folder / "output").mkdir(parents=True)
    (folder / "temporary").mkdir()
    content = hostile.build(folder / "canary")
    (folder / "sent").write_bytes(content)
    os.link(folder / "sent", folder / "upload")
    del content
    child = os.fork()
    if child == 0:
        _run(hostile, folder)
    _, status, usage = os.wait4(child, 0)
    said = folder / "said.json"
    reasons = json.loads(said.read_text())["reasons"] if said.exists() else []
    before = int((folder / "resident").read_text())
    known = {"output", "temporary", "sent", "upload", "said.json", "log", "resident"}
    left = [str(path.relative_to(folder)) for path in folder.rglob("*")]
    return Verdict(
        code=reasons[0]["code"] if reasons else None,
        status=os.waitstatus_to_exitcode(status),
        seconds=usage.ru_utime + usage.ru_stime,
        growth_bytes=usage.ru_maxrss * 1024 - before,
        left=sorted(set(left) - known),
    )


def _run(hostile: Hostile, folder: Path) -> None:
    """Be a runner; never returns."""
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    tempfile.tempdir = str(folder / "temporary")
    os.chdir(folder)
    try:
        Path("resident").write_text(str(_resident_bytes()))
        confine(memory_bytes=MEMORY_BYTES, max_tasks=64, threads=1)
        _validate(hostile, folder)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)


def _validate(hostile: Hostile, folder: Path) -> None:
    named = {"name": "hostile", "file_id": "file_1"}
    if hostile.purpose == "checkpoint":
        request = ModelRequest.model_validate(named | {"input": INPUT, "num_classes": 3})
        validate = validate_model
    else:
        kind = "npz" if hostile.filename.endswith(".npz") else "image_folder"
        request = DatasetRequest.model_validate(named | {"format": kind})
        validate = validate_dataset
    spec = Spec(
        kind=validate.__name__,
        request=request.model_dump(mode="json"),
        threads=1,
        memory_bytes=MEMORY_BYTES,
        checkpoint_interval_s=1.0,
    )
    validate(spec, folder, Pen(folder / "said.json"))


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    for number, hostile in enumerate(HOSTILE.values()):
        verdict = judge(hostile, folder / str(number))
        (folder / str(number) / "verdict.json").write_text(json.dumps(asdict(verdict)))


if __name__ == "__main__":
    main()
