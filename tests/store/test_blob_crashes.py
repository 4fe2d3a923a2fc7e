"""A process that is killed at any step of storing or removing leaves no row without its bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import select

from store import garbage
from store.blobs import BlobStore
from store.database import Database
from store.migrate import upgrade
from store.tables import Blob
from tests.store.crashes import PIECE, PIECES, age, put
from tests.store.places import BUCKET, S3Server, s3_store

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Scene:
    """Where processes are killed, and a way to open what one of them has left."""

    url: str
    variables: dict[str, str]
    open: Callable[[str], BlobStore]


@pytest.fixture(params=["local disk", "s3"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Scene:
    if request.param == "local disk":
        return Scene((tmp_path / "blobs").as_uri(), {}, BlobStore)
    server: S3Server = request.getfixturevalue("s3")
    variables = server.variables()
    return Scene(f"s3://{BUCKET}/{tmp_path.name}", variables, lambda url: s3_store(url, variables))


@dataclass(frozen=True)
class Ruin:
    """What a killed process has left."""

    database: Database
    blobs: BlobStore

    def rows(self) -> list[str]:
        with self.database.reading() as session:
            return list(session.scalars(select(Blob.sha256).where(Blob.condemned_at.is_(None))))

    def check_every_row_has_its_bytes(self, folder: Path) -> None:
        for sha256 in self.rows():
            self.blobs.fetch(sha256, folder / sha256)

    def clean_up(self) -> None:
        """Do what housekeeping does once everything is old."""
        age(self.database)
        garbage.condemn_orphans(self.database, self.blobs, grace_s=-60)
        with self.database.writing() as session:
            garbage.condemn_unreferenced(session, grace_s=3600)
        garbage.remove_condemned(self.database, self.blobs)
        self.blobs.sweep_staging(grace_s=-60)


def kill_at_every_step(operation: str, scene: Scene, folder: Path) -> list[Ruin]:
    """Return what was left by each process that was killed, and by the one that was not."""
    template = Database(f"sqlite:///{folder / 'template.db'}")
    upgrade(template)
    template.dispose()
    command = [sys.executable, "-m", "tests.store.crashes", operation, str(folder), scene.url]
    run = subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**os.environ, **scene.variables},
        check=True,
        capture_output=True,
        text=True,
    )
    killed = int(run.stdout)
    assert killed > 8
    return [
        Ruin(
            Database(f"sqlite:///{folder / str(step) / 'cstar.db'}"),
            scene.open(f"{scene.url}/{step}"),
        )
        for step in range(1, killed + 2)
    ]


@pytest.mark.parametrize("operation", ["put", "collect"])
def test_no_step_leaves_a_row_without_bytes_and_the_bytes_can_be_stored_again(
    scene: Scene, tmp_path: Path, operation: str
) -> None:
    pieces = PIECES if operation == "put" else [PIECE]
    ruins = kill_at_every_step(operation, scene, tmp_path)
    assert len(ruins[-1].rows()) == (1 if operation == "put" else 0)
    for ruin in ruins:
        ruin.check_every_row_has_its_bytes(tmp_path)
        put(ruin.database, ruin.blobs, *pieces)
        assert len(ruin.rows()) == 1
        ruin.check_every_row_has_its_bytes(tmp_path)
        ruin.clean_up()
        assert (ruin.rows(), ruin.blobs.names("")) == ([], [])
        ruin.database.dispose()
