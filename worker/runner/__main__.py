"""Entry of a runner process: `python -m worker.runner FOLDER`."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path

from cstar_core.errors import CstarError
from worker.protocol import SPEC_FILE, Failure, Spec
from worker.runner.confinement import confine, die_with_supervisor
from worker.runner.voice import Voice

# Named, not imported: a validation does without the libraries of a compression.
KINDS = {
    "compress": ("worker.runner.compression", "compress"),
    "validate_model": ("worker.runner.validation", "validate_model"),
    "validate_dataset": ("worker.runner.validation", "validate_dataset"),
}


def main() -> None:
    """Do what the spec in the folder says, and end."""
    die_with_supervisor()
    folder = Path(sys.argv[1])
    voice = Voice()
    spec = Spec.model_validate_json((folder / SPEC_FILE).read_text())
    module, function = KINDS[spec.kind]
    work = getattr(importlib.import_module(module), function)
    confine(memory_bytes=spec.memory_bytes, threads=spec.threads)
    try:
        work(spec, folder, voice)
    except Exception as error:
        traceback.print_exc()
        voice.say(_judge(error))


def _judge(error: Exception) -> Failure:
    """Tell the caller's faults from ours: only errors with a code of their own are the caller's."""
    if isinstance(error, CstarError):
        return Failure(code=error.code, message=str(error))
    if isinstance(error, MemoryError) or _is_allocation(error):
        return Failure(code="out_of_memory", message=str(error) or "out of memory", retryable=True)
    return Failure(code="internal", message=f"{type(error).__name__}: {error}", retryable=True)


def _is_allocation(error: Exception) -> bool:
    """Say whether torch gave up allocating (on a CPU it raises a plain RuntimeError)."""
    words = ("not enough memory", "out of memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


if __name__ == "__main__":
    main()
