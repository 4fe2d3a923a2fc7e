"""The folder of one attempt: inputs fetched from the blob store, the spec, room for output."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy.orm import Session

from store.blobs import BlobStore, StoredBlob
from store.context import ids
from store.settings import Settings
from store.states import JobKind
from store.tables import Checkpoint, Dataset, File, Job, Model
from store.tracing import traced
from worker.attempt import Attempt
from worker.protocol import CHECKPOINT_FILE, OUTPUT_FOLDER, SPEC_FILE, Spec

UPLOAD_FILE = "upload"
WEIGHTS_FILE = "weights.safetensors"
DATASET_FILE = "dataset.npz"
LOG_FILE = "runner.log"


@contextmanager
def workspace(attempt: Attempt) -> Iterator[Path]:
    """Prepare the folder of an attempt and remove it afterwards, whatever happened."""
    lease, settings = attempt.lease, attempt.settings
    work = settings.data_dir.resolve() / "work"
    folder = work / f"{lease.job_id}.{lease.attempt}"
    for left_over in work.glob(f"{lease.job_id}.*"):  # of attempts whose worker was killed
        shutil.rmtree(left_over, ignore_errors=True)
    (folder / OUTPUT_FOLDER).mkdir(parents=True)
    try:
        with attempt.database.reading() as session:
            job = session.get_one(Job, lease.job_id)
            inputs = _inputs(session, job)
            spec = _spec(session, job, settings)
        for name, sha256 in inputs.items():
            attempt.blobs.fetch(sha256, folder / name)
        (folder / SPEC_FILE).write_text(spec.model_dump_json())
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
    inputs = {WEIGHTS_FILE: str(session.get_one(Model, job.model_id).weights_sha256)}
    if job.kind == JobKind.PLAN:
        return inputs
    inputs[DATASET_FILE] = str(session.get_one(Dataset, job.dataset_id).blob_sha256)
    checkpoint = session.get(Checkpoint, job.id)
    return inputs if checkpoint is None else {**inputs, CHECKPOINT_FILE: checkpoint.sha256}


def _spec(session: Session, job: Job, settings: Settings) -> Spec:
    return Spec(
        kind=job.kind,
        request=job.request,
        subject=_subject(session, job),
        threads=settings.runner_threads,
        memory_bytes=settings.runner_memory_bytes,
        checkpoint_interval_s=settings.checkpoint_interval_s,
        log_format=settings.log_format,
        traced=traced(),
        ids=ids(),
    )


def _subject(session: Session, job: Job) -> dict[str, Any]:
    """Return what a plan or a compression needs to know of its model and data set."""
    if job.kind not in (JobKind.PLAN, JobKind.COMPRESS):
        return {}
    model = session.get_one(Model, job.model_id)
    facts: dict[str, Any] = {
        "job_id": job.id,
        "model": {"id": model.id, "name": model.name, "weights_sha256": model.weights_sha256},
        "architecture": model.architecture,
        "input": model.input,
        "num_classes": model.num_classes,
    }
    if job.kind == JobKind.COMPRESS:
        dataset = session.get_one(Dataset, job.dataset_id)
        facts["dataset"] = {
            "id": dataset.id,
            "name": dataset.name,
            "content_sha256": dataset.content_sha256,
        }
    return dict(json.loads(json.dumps(facts)))
