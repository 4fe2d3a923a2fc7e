"""Saving the whole service into a folder while it runs, and bringing it into an empty place.

The database comes first, as one snapshot; then every blob that the snapshot refers to, so that no
row lacks its bytes. A folder holds `database.sqlite3` or `database.dump`, `blobs/`, and, written
last, `manifest.json`. Bytes that a folder has from an earlier backup are not copied again.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Collection
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

from alembic.util import CommandError
from sqlalchemy import URL, func, inspect, select
from sqlalchemy.orm import Session

from store.blobs import BlobStore, DigestMismatch
from store.database import Database, database_now, waiting
from store.migrate import revisions, upgrade
from store.settings import Settings
from store.tables import Artifact, Blob, Checkpoint, Dataset, File, Model

SQLITE_FILE = "database.sqlite3"
POSTGRESQL_FILE = "database.dump"
BLOBS = "blobs"
MANIFEST = "manifest.json"
_NEEDED = (
    File.sha256,
    Model.weights_sha256,
    Model.network_sha256,
    Dataset.blob_sha256,
    Artifact.sha256,
)


class BackupFailed(Exception):
    """Nothing was saved or restored that could be relied on; the message says why."""


@dataclass(frozen=True)
class Manifest:
    """What a backup holds.

    `missing` are blobs that were deleted after the snapshot, `damaged` those that a scrub has
    found rotten or gone: what refers to them is there, their bytes are not (`store.scrub`).
    """

    created_at: str
    service: str
    dialect: str
    revision: str | None
    blobs: int
    bytes: int
    missing: list[str]
    damaged: list[str] = field(default_factory=list)


def save(settings: Settings, folder: Path) -> Manifest:
    """Write a backup into `folder`; raises BackupFailed when a needed blob is gone, and
    DigestMismatch when one is rotten that no scrub has found yet."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)  # until the new one is there, this is no backup
    database = Database(settings.resolved_database_url)
    try:
        snapshot = _take_snapshot(database, folder)
    finally:
        database.dispose()
    copied = _copy(BlobStore(settings.resolved_blob_url), _store_in(folder), snapshot.blobs)
    missing = sorted(set(snapshot.blobs) - copied)
    if lacking := sorted(snapshot.needed & set(missing)):
        raise BackupFailed(f"the blob store lacks {len(lacking)} needed blobs, first {lacking[0]}")
    manifest = Manifest(
        created_at=snapshot.created_at,
        service=version("cstar-service"),
        dialect=snapshot.dialect,
        revision=snapshot.revision,
        blobs=len(copied),
        bytes=sum(snapshot.blobs[name] for name in copied),
        missing=missing,
        damaged=snapshot.damaged,
    )
    partial = folder / f"{MANIFEST}.partial"
    partial.write_text(json.dumps(asdict(manifest), indent=2) + "\n")
    partial.replace(folder / MANIFEST)
    return manifest


def restore(settings: Settings, folder: Path) -> Manifest:
    """Bring a backup into the empty database and the blob store of `settings`; checks every byte.

    Jobs that were running have leases that soon run out: they go on as lost attempts do. Raises
    BackupFailed, DigestMismatch.
    """
    manifest = _manifest(folder)
    database = Database(settings.resolved_database_url)
    try:
        if database.engine.dialect.name != manifest.dialect:
            raise BackupFailed(f"a backup of {manifest.dialect} needs a CSTAR_DATABASE_URL of it")
        if inspect(database.engine).get_table_names():
            raise BackupFailed("the database has tables; restore into an empty one")
        saved = _store_in(folder)
        names = {path.rsplit("/", 1)[1] for path in saved.names("sha256/")}
        copied = _copy(saved, BlobStore(settings.resolved_blob_url), names)
        _load(database, folder)
        upgrade(database)
        _forget_missing(database, copied)
    finally:
        database.dispose()
    return manifest


def command(act: Callable[[Settings, Path], Manifest], settings: Settings, folder: Path) -> int:
    """Run `save` or `restore` for the command line; 1 with the reason when it failed."""
    try:
        manifest = act(settings, folder)
    except (BackupFailed, DigestMismatch, CommandError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(asdict(manifest)))
    return 0


@dataclass(frozen=True)
class _Snapshot:
    """The moment a backup is of: its blobs with their sizes, and those it cannot do without."""

    created_at: str
    dialect: str
    revision: str | None
    blobs: dict[str, int]
    needed: frozenset[str]
    damaged: list[str]


def _take_snapshot(database: Database, folder: Path) -> _Snapshot:
    """Save the database and return what it names at that moment."""
    revision, head = revisions(database)
    if revision != head:
        raise BackupFailed("the database is of another version; run `store.migrate upgrade`")
    if database.engine.dialect.name == "postgresql":
        with database.reading() as session:  # pg_dump looks at the moment of this transaction
            moment = session.scalar(select(func.pg_export_snapshot()))
            described = _described(session, revision)
            with waiting(session, 0):
                _dump(database.engine.url, folder / POSTGRESQL_FILE, str(moment))
            return described
    (folder / SQLITE_FILE).unlink(missing_ok=True)
    _copy_sqlite(Path(str(database.engine.url.database)), folder / SQLITE_FILE)
    copy = Database(f"sqlite:///{folder.resolve() / SQLITE_FILE}")
    try:
        with copy.reading() as session:
            return _described(session, revision)
    finally:
        copy.dispose()


def _described(session: Session, revision: str | None) -> _Snapshot:
    needed = {name for column in _NEEDED for name in session.scalars(select(column)) if name}
    referenced = needed | set(session.scalars(select(Checkpoint.sha256)))
    rows = session.execute(select(Blob.sha256, Blob.bytes, Blob.damage)).all()
    damaged = {row.sha256 for row in rows if row.damage is not None} & referenced
    whole = referenced - damaged
    return _Snapshot(
        created_at=database_now(session).isoformat(),
        dialect=session.get_bind().dialect.name,
        revision=revision,
        blobs={row.sha256: row.bytes for row in rows if row.sha256 in whole},
        needed=frozenset(needed & whole),
        damaged=sorted(damaged),
    )


def _copy(source: BlobStore, target: BlobStore, names: Collection[str]) -> set[str]:
    """Copy blobs, checking the bytes of each; returns those that are in `target` now."""
    there = {path.rsplit("/", 1)[1] for path in target.names("sha256/")}
    copied = there & set(names)
    for sha256 in sorted(set(names) - there):
        with suppress(FileNotFoundError), target.stage() as staging:  # deleted since the snapshot
            for chunk in source.read(sha256):
                staging.write(chunk)
            staging.commit(expected_sha256=sha256)
            copied.add(sha256)
    return copied


def _store_in(folder: Path) -> BlobStore:
    return BlobStore((folder.resolve() / BLOBS).as_uri())


def _copy_sqlite(source: Path, target: Path) -> None:
    """Copy a database that others write to meanwhile (SQLite's online backup, in one step)."""
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)


def _dump(url: URL, target: Path, moment: str) -> None:
    options = ["--format=custom", "--no-owner", "--no-privileges", f"--snapshot={moment}"]
    _run("pg_dump", url, *options, f"--file={target}")


def _load(database: Database, folder: Path) -> None:
    url = database.engine.url
    if database.engine.dialect.name == "sqlite":
        database.dispose()
        _copy_sqlite(folder / SQLITE_FILE, Path(str(url.database)))
        return
    options = ["--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction"]
    _run("pg_restore", url, *options, str(folder / POSTGRESQL_FILE))


def _run(program: str, url: URL, *arguments: str) -> None:
    """Run a tool of PostgreSQL; the password goes through its environment, unseen by `ps`."""
    if shutil.which(program) is None:
        raise BackupFailed(f"{program} is not on PATH; install that of the server's version")
    place = url.set(drivername="postgresql", password=None).render_as_string(hide_password=False)
    environment = dict(os.environ) | ({"PGPASSWORD": str(url.password)} if url.password else {})
    done = subprocess.run(
        [program, f"--dbname={place}", *arguments],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise BackupFailed(f"{program} failed: {done.stderr.strip()}")


def _manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    if not path.exists():
        raise BackupFailed(f"{path} is not there: this is no backup, or one that was cut short")
    return Manifest(**json.loads(path.read_text()))


def _forget_missing(database: Database, copied: set[str]) -> None:
    """Drop what refers to blobs that had gone: jobs whose checkpoint is lost begin anew.

    A damaged blob keeps its row, which says so; it is whole again if the folder has good bytes of
    it from an earlier backup.
    """
    with database.writing() as session:
        for checkpoint in session.scalars(select(Checkpoint)).all():
            if checkpoint.sha256 not in copied:
                session.delete(checkpoint)
        session.flush()
        for blob in session.scalars(select(Blob)).all():
            if blob.sha256 in copied:
                blob.damage = None
            elif blob.damage is None:
                session.delete(blob)
