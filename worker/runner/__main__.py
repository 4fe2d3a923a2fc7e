"""Entry of a runner process: `python -m worker.runner FOLDER`."""

from __future__ import annotations

from worker.runner.confinement import confine, die_with_supervisor

die_with_supervisor()  # before the imports below, which take seconds

import sys  # noqa: E402
import traceback  # noqa: E402
from pathlib import Path  # noqa: E402

import torch  # noqa: E402

from cstar_core.errors import CstarError  # noqa: E402
from cstar_core.pipeline import Interrupted  # noqa: E402
from worker.protocol import SPEC_FILE, Failure, Spec, Stopped  # noqa: E402
from worker.runner.compression import compress  # noqa: E402
from worker.runner.validation import validate_dataset, validate_model  # noqa: E402
from worker.runner.voice import Voice  # noqa: E402

KINDS = {
    "compress": compress,
    "validate_model": validate_model,
    "validate_dataset": validate_dataset,
}


def main() -> None:
    """Do what the spec in the folder says, and end."""
    folder = Path(sys.argv[1])
    voice = Voice()
    spec = Spec.model_validate_json((folder / SPEC_FILE).read_text())
    confine(memory_bytes=spec.memory_bytes)
    if spec.threads:
        torch.set_num_threads(spec.threads)
    try:
        KINDS[spec.kind](spec, folder, voice)
    except Exception as error:
        traceback.print_exc()
        voice.say(_judge(error))


def _judge(error: Exception) -> Failure | Stopped:
    """Tell the caller's faults from ours."""
    if isinstance(error, Interrupted):
        return Stopped()
    if isinstance(error, CstarError):
        return Failure(code=error.code, message=str(error))
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or _is_allocation(error):
        return Failure(code="out_of_memory", message=str(error) or "out of memory", retryable=True)
    return Failure(code="internal", message=f"{type(error).__name__}: {error}", retryable=True)


def _is_allocation(error: Exception) -> bool:
    """Say whether torch's CPU allocator gave up (it raises a plain RuntimeError)."""
    return isinstance(error, RuntimeError) and "not enough memory" in str(error)


if __name__ == "__main__":
    main()
