"""Entry of a runner process: `python -m worker.runner FOLDER`."""

from __future__ import annotations

import importlib
import logging
import math
import sys
from pathlib import Path

from cstar_core.errors import CstarError, TargetInfeasible
from store.context import working_for
from store.logs import configure_logging
from store.states import ErrorCode
from worker.protocol import MAX_MESSAGE, SPEC_FILE, Failure, Spec
from worker.runner.confinement import confine, die_with_supervisor
from worker.runner.shortage import shortage
from worker.runner.voice import Voice, printable

logger = logging.getLogger(__name__)

# Named, not imported: a validation does without the libraries of a compression.
KINDS = {
    "compress": ("worker.runner.compression", "compress"),
    "evaluate": ("worker.runner.evaluation", "evaluate"),
    "plan": ("worker.runner.planning", "plan"),
    "validate_model": ("worker.runner.validation", "validate_model"),
    "validate_dataset": ("worker.runner.validation", "validate_dataset"),
}
TARGET_OF_UNIT = {"parameters": "max_params", "macs": "max_macs", "bytes": "max_bytes"}


def main() -> None:
    """Do what the spec in the folder says, and end."""
    die_with_supervisor()
    folder = Path(sys.argv[1])
    voice = Voice()
    spec = Spec.model_validate_json((folder / SPEC_FILE).read_text())
    configure_logging("runner", spec.log_format)
    if spec.traced:
        voice.trace("importing")
    with working_for(**spec.ids):
        _work(spec, folder, voice)


def _work(spec: Spec, folder: Path, voice: Voice) -> None:
    logger.info("the runner begins: %s", spec.kind)
    module, function = KINDS[spec.kind]
    work = getattr(importlib.import_module(module), function)
    confine(memory_bytes=spec.memory_bytes, max_tasks=spec.max_tasks, threads=spec.threads)
    voice.turn_to(spec.kind)
    try:
        work(spec, folder, voice)
    except Exception as error:
        logger.exception("the work failed")
        voice.say(judge(error))


def judge(error: Exception) -> Failure:
    """Tell the caller's faults from ours: only errors with a code of their own are the caller's."""
    text = printable(str(error))[:MAX_MESSAGE]
    if short := shortage(error):
        told = printable(short.text)[:MAX_MESSAGE]
        return Failure(code=short.code, message=told, retryable=short.passes)
    if isinstance(error, CstarError):
        known = error.code in set(ErrorCode)  # a finding about a file is told by its kind
        code = error.code if known else type(error).code
        return Failure(code=code, message=text, best=_best(error))
    text = f"{type(error).__name__}: {text}"[:MAX_MESSAGE]
    return Failure(code="internal", message=text, retryable=True)


def _best(error: CstarError) -> dict[str, int | float]:
    """Return what can be met of a target out of reach, under the name a request has for it."""
    if not isinstance(error, TargetInfeasible):
        return {}
    if error.unit == "latency":  # nanoseconds; rounded up, so that it may be asked for
        return {"max_latency_ms": math.ceil(error.best / 1000) / 1000}
    return {TARGET_OF_UNIT[error.unit]: error.best}


if __name__ == "__main__":
    main()
