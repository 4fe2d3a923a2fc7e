"""The folder of one attempt: inputs fetched from the blob store, the spec, room for output."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy.orm import Session

from store.blobs import BlobStore, StoredBlob
from store.context import ids
from store.settings import Settings
from store.states import REQUESTED, JobKind
from store.tables import Checkpoint, Dataset, File, Job, Model
from store.tracing import traced
from worker.attempt import Attempt
from worker.disk import remove
from worker.protocol import CHECKPOINT_FILE, OUTPUT_FOLDER, SPEC_FILE, Spec

UPLOAD_FILE = "upload"
WEIGHTS_FILE = "weights.safetensors"
BASELINE_FILE = "baseline.safetensors"
EXPORTED_FOLDERS = {WEIGHTS_FILE: "network", BASELINE_FILE: "baseline"}
EXPORTED_WEIGHTS, EXPORTED_NETWORK = "model.safetensors", "architecture.json"
DATASET_FILE = "dataset.npz"
LOG_FILE = "runner.log"


@contextmanager
def workspace(attempt: Attempt, *, on_chunk: Callable[[], object] = lambda: None) -> Iterator[Path]:
    """Prepare the folder of an attempt and remove it afterwards, whatever happened.

    `on_chunk` is called again and again while inputs are fetched, and may raise to break off.
    """
    lease, settings = attempt.lease, attempt.settings
    work = settings.data_dir.resolve() / "work"
    with _claimed(work, f"{lease.job_id}.{lease.attempt}") as folder:
        (folder / OUTPUT_FOLDER).mkdir()
        with attempt.database.reading() as session:
            job = session.get_one(Job, lease.job_id)
            inputs = _inputs(session, job)
            spec = _spec(session, job, settings)
        for name, sha256 in inputs.items():
            (folder / name).parent.mkdir(exist_ok=True)
            attempt.blobs.fetch(sha256, folder / name, on_chunk=on_chunk)
        (folder / SPEC_FILE).write_text(spec.model_dump_json())
        yield folder


def sweep(work: Path) -> None:
    """Remove the folders of attempts whose worker has died; those that live hold a lock."""
    if not work.exists():
        return
    with _locked(work, fcntl.LOCK_EX):
        for folder in work.iterdir():
            with suppress(OSError):
                folder.chmod(0o700)  # its runner may have closed it
                with _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    remove(folder)


@contextmanager
def _claimed(work: Path, name: str) -> Iterator[Path]:
    """Make a folder that is kept as long as this process lives, and remove it at the end."""
    folder = work / name
    work.mkdir(parents=True, exist_ok=True)
    sweep(work)
    with ExitStack() as stack:
        with _locked(work, fcntl.LOCK_EX):  # nobody sweeps before it is locked
            folder.mkdir()
            stack.callback(remove, folder)
            stack.enter_context(_locked(folder, fcntl.LOCK_EX))
        yield folder


@contextmanager
def _locked(folder: Path, operation: int) -> Iterator[None]:
    """Hold a lock on a folder, which ends with the process; raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, operation)
        yield
    finally:
        os.close(descriptor)


def keep(blobs: BlobStore, path: Path) -> StoredBlob:
    """Store a file that a runner has left; raises OSError when it is not a plain file."""
    with _open_plain(path) as file:  # by descriptor: the name may lead elsewhere by now
        return blobs.put_file(Path(f"/proc/self/fd/{file.fileno()}"))


def tail(path: Path, limit: int = 64 << 10) -> str:
    """Return at most the last `limit` bytes of a log as text."""
    try:
        file = _open_plain(path)
    except OSError as error:
        return f"(no log: {error.strerror})"
    with file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - limit))
        return file.read(limit).decode(errors="replace").replace("\x00", "")


def _open_plain(path: Path) -> BinaryIO:
    """Open a file that may have been made to lead out of its folder, or to block."""
    if path.parent.is_symlink():
        raise OSError(errno.ELOOP, "the folder is a link", str(path.parent))
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a plain file", str(path))
    return file


def _inputs(session: Session, job: Job) -> dict[str, str]:
    if job.kind == JobKind.VALIDATE_MODEL:
        file_id = session.get_one(Model, job.model_id).file_id
        return {UPLOAD_FILE: session.get_one(File, file_id).sha256}
    if job.kind == JobKind.VALIDATE_DATASET:
        file_id = session.get_one(Dataset, job.dataset_id).file_id
        return {UPLOAD_FILE: session.get_one(File, file_id).sha256}
    inputs = _weights(session.get_one(Model, job.model_id), WEIGHTS_FILE)
    if job.kind == JobKind.PLAN:
        return inputs
    inputs[DATASET_FILE] = str(session.get_one(Dataset, job.dataset_id).blob_sha256)
    if (baseline := _baseline(session, job)) is not None:
        inputs |= _weights(baseline, BASELINE_FILE)
    checkpoint = session.get(Checkpoint, job.id)
    return inputs if checkpoint is None else {**inputs, CHECKPOINT_FILE: checkpoint.sha256}


def _weights(model: Model, name: str) -> dict[str, str]:
    """Return where a runner finds a network: one file of weights, or the folder of an export."""
    if model.network_sha256 is None:
        return {name: str(model.weights_sha256)}
    folder = EXPORTED_FOLDERS[name]
    return {
        f"{folder}/{EXPORTED_WEIGHTS}": str(model.weights_sha256),
        f"{folder}/{EXPORTED_NETWORK}": model.network_sha256,
    }


def _spec(session: Session, job: Job, settings: Settings) -> Spec:
    return Spec(
        kind=job.kind,
        request=job.request,
        subject=_subject(session, job),
        threads=settings.runner_threads,
        memory_bytes=settings.runner_memory_bytes,
        max_tasks=settings.runner_tasks,
        checkpoint_interval_s=settings.checkpoint_interval_s,
        log_format=settings.log_format,
        traced=traced(),
        ids=ids(),
    )


def _subject(session: Session, job: Job) -> dict[str, Any]:
    """Return what a job on a model needs to know of its models and its data set."""
    if job.kind not in REQUESTED | {JobKind.PLAN}:
        return {}
    facts = {"job_id": job.id, **_network(session.get_one(Model, job.model_id))}
    if (baseline := _baseline(session, job)) is not None:
        facts["baseline"] = _network(baseline)
    if job.kind in REQUESTED:
        dataset = session.get_one(Dataset, job.dataset_id)
        facts["dataset"] = {
            "id": dataset.id,
            "name": dataset.name,
            "content_sha256": dataset.content_sha256,
        }
    return dict(json.loads(json.dumps(facts)))


def _network(model: Model) -> dict[str, Any]:
    return {
        "model": {"id": model.id, "name": model.name, "weights_sha256": model.weights_sha256},
        "architecture": model.architecture,
        "exported": model.network_sha256 is not None,
        "input": model.input,
        "num_classes": model.num_classes,
    }


def _baseline(session: Session, job: Job) -> Model | None:
    """Return the model with which an evaluation compares, if it does."""
    model_id = job.request.get("baseline_model_id")
    return None if model_id is None else session.get_one(Model, model_id)
