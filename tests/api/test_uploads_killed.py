"""An upload comes through whatever is killed, and the API needs no memory in its proportion."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from sqlalchemy import select, update

from api.dependencies import Services
from stack.children import Child
from store import uploads
from store.blobs import BlobStore
from store.database import Database, database_now
from store.keys import create_key, create_tenant
from store.migrate import upgrade
from store.tables import File, Upload
from tests.api.completion_crashes import complete, services_in
from tests.e2e.watching import until
from tests.store.places import BUCKET, S3Server, s3_server
from tests.support.server import SECRET, serving

REPOSITORY = Path(__file__).parents[2]
PART = 1 << 16
MEBIBYTE = 1 << 20
GROWTH_BYTES = 48 * MEBIBYTE


def content_of(size: int, seed: int = 0) -> bytes:
    """Return bytes that begin as a zip does."""
    return b"PK\x03\x04" + random.Random(seed).randbytes(size - 4)


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(params=["local disk", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "local disk":
        return (tmp_path / "blobs").as_uri()
    server: S3Server = request.getfixturevalue("s3")
    for name, value in server.variables().items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{tmp_path.name}"


def prepare(folder: Path, content: bytes) -> None:
    """Write an upload all of whose parts have rows; their bytes are still to come."""
    (folder / "content").write_bytes(content)
    database = Database(f"sqlite:///{folder / 'template.db'}")
    upgrade(database)
    with database.writing() as session:
        upload = uploads.create(
            session,
            tenant_id=create_tenant(session, "owner").id,
            filename="weights.pt",
            purpose="checkpoint",
            bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            part_bytes=PART,
            expiry_s=3600.0,
        )
        for number in range(1, uploads.layout_of(upload).count + 1):
            piece = hashlib.sha256(content[(number - 1) * PART : number * PART]).hexdigest()
            uploads.arrive(session, upload.id, number, sha256=piece, e_tag=None, expiry_s=3600.0)
    database.dispose()


def lapse(database: Database) -> None:
    """Let the leases of those who died have run out."""
    with database.writing() as session:
        session.execute(update(Upload).values(lease_expires_at=database_now(session)))


def test_a_completion_killed_at_any_step_is_done_by_the_next(url: str, tmp_path: Path) -> None:
    content = content_of(2 * PART + 1)
    prepare(tmp_path, content)
    command = [sys.executable, "-m", "tests.api.completion_crashes", str(tmp_path), url]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    killed = int(run.stdout)
    assert killed > 10
    for step in range(1, killed + 2):
        services = services_in(tmp_path / str(step), f"{url}/{step}")
        lapse(services.database)
        complete(services)
        check_whole(services, content)
        services.database.dispose()


def check_whole(services: Services, content: bytes) -> None:
    """Check that there is the file, once, and nothing else."""
    with services.database.reading() as session:
        file = session.scalars(select(File)).one()
        upload = session.scalars(select(Upload)).one()
    assert (upload.status, upload.file_id) == ("completed", file.id)
    assert b"".join(services.blobs.read(file.sha256)) == content
    uploads.sweep(services.database, services.parts, grace_s=-60)
    services.blobs.sweep_staging(grace_s=-60)
    assert services.blobs.names("") == [f"sha256/{file.sha256[:2]}/{file.sha256}"]


@dataclass
class Resumer:
    """A client that goes on until its file is there.

    `on_answer` is called after every answer, `on_round` before each look at what is missing.
    """

    client: httpx.Client
    content: bytes
    random: random.Random
    on_answer: Callable[[str], object] = lambda _: None
    on_round: Callable[[], object] = lambda: None

    def upload(self) -> dict[str, Any]:
        """Upload, asking what is missing whenever something broke."""
        body = {
            "filename": "weights.pt",
            "purpose": "checkpoint",
            "bytes": len(self.content),
            "sha256": hashlib.sha256(self.content).hexdigest(),
            "part_bytes": PART,
        }
        opened = self.client.post("/v1/uploads", json=body, timeout=60.0).raise_for_status().json()
        url = opened["urls"]["self"]
        return dict(until(lambda: self._go_on(url), "the upload to be completed"))

    def _go_on(self, url: str) -> dict[str, Any] | None:
        self.on_round()
        try:
            upload = self.client.get(url).raise_for_status().json()
            numbers = self.random.sample(upload["missing_parts"], len(upload["missing_parts"]))
            with ThreadPoolExecutor(4) as threads:
                list(threads.map(lambda number: self._send(url, number), numbers))
            self.on_answer("sent")
            answer = self.client.post(f"{url}/complete", headers={"Prefer": "wait=1"})
            return dict(answer.json()) if answer.status_code == httpx.codes.OK else None
        except httpx.TransportError:
            return None

    def _send(self, url: str, number: int) -> None:
        piece = self.content[(number - 1) * PART : number * PART]
        self.client.put(f"{url}/parts/{number}", content=piece).raise_for_status()
        self.on_answer("part")


@dataclass
class Killer:
    """Kills the API now and then; `revive` starts it again."""

    child: Child
    random: random.Random
    left: int
    database: Database

    def consider(self, what: str) -> None:
        """Strike in every tenth part, and shortly after each request to complete."""
        if self.left > 0 and (what == "sent" or self.random.random() < 0.1):
            self.left -= 1
            threading.Timer(self.random.uniform(0.0, 0.1), self._strike).start()

    def revive(self) -> None:
        """Start the API again; from a thread that lives on, since it ends with that."""
        assert self.child.process is not None
        if self.child.process.poll() is not None:
            lapse(self.database)
            self.child.start()

    def _strike(self) -> None:
        assert self.child.process is not None
        self.child.process.kill()


def client_of(address: str, database: Database) -> httpx.Client:
    """Return a client with a key of a new tenant."""
    with database.writing() as session:
        tenant_id = create_tenant(session, "owner").id
        key = create_key(session, tenant_id=tenant_id, name="first", secret_key=SECRET)
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=address, headers=headers, timeout=120.0, trust_env=False)


def test_an_api_that_is_killed_again_and_again_loses_nothing(
    sqlite_database: Database, tmp_path: Path
) -> None:
    chance, content = random.Random(6), content_of(64 * PART + 5)
    with serving(sqlite_database, tmp_path) as (address, child):
        client = client_of(address, sqlite_database)
        client.timeout = httpx.Timeout(5.0)  # the socket outlives whoever would accept
        killer = Killer(child, chance, 4, sqlite_database)
        completed = Resumer(client, content, chance, killer.consider, killer.revive).upload()
        assert killer.left == 0
        fetched = until(lambda: _fetched(client, completed, killer), "the file")
    assert hashlib.sha256(fetched).hexdigest() == hashlib.sha256(content).hexdigest()
    store = BlobStore((tmp_path / "blobs").as_uri())
    assert store.names("staging/") == []


def _fetched(client: httpx.Client, upload: dict[str, Any], killer: Killer) -> bytes | None:
    killer.revive()  # the last strike may have come after the answer
    try:
        return client.get(upload["file"]["url"]).raise_for_status().content
    except httpx.TransportError:
        return None


def test_a_client_that_is_killed_in_the_middle_of_a_part_goes_on_with_that_part(
    sqlite_database: Database, tmp_path: Path
) -> None:
    content = content_of(3 * PART)
    with serving(sqlite_database, tmp_path) as (address, _):
        client = client_of(address, sqlite_database)
        resumer = Resumer(client, content, random.Random(6))

        def cut_off() -> Iterator[bytes]:
            yield content[PART : PART + 1000]
            raise InterruptedError

        opened = client.post(
            "/v1/uploads",
            json={
                "filename": "weights.pt",
                "purpose": "checkpoint",
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
                "part_bytes": PART,
            },
        ).json()
        url = opened["urls"]["self"]
        resumer._send(url, 1)
        headers = {"Content-Length": str(PART)}
        with pytest.raises(InterruptedError):
            client.put(f"{url}/parts/2", content=cut_off(), headers=headers)
        assert client.get(url).json()["missing_parts"] == [2, 3]
        completed = until(lambda: resumer._go_on(url), "the upload to be completed")
        assert client.get(completed["file"]["url"]).content == content


class Memory:
    """The most resident memory of a process while the block runs."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.before = self.peak = self._process.memory_info().rss

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            self.peak = max(self.peak, self._process.memory_info().rss)


def test_memory_does_not_grow_with_what_is_uploaded_and_downloaded(
    sqlite_database: Database, tmp_path: Path
) -> None:
    with serving(sqlite_database, tmp_path) as (address, child):
        client = client_of(address, sqlite_database)
        assert child.process is not None
        there_and_back(client, content_of(4 * MEBIBYTE, seed=1))  # what is loaded once
        with Memory(child.process.pid) as memory:
            there_and_back(client, content_of(128 * MEBIBYTE, seed=2))
    assert memory.peak - memory.before < GROWTH_BYTES


def there_and_back(client: httpx.Client, content: bytes) -> None:
    """Upload in parts of 8 MiB, four at once; download whole."""
    sha256, size = hashlib.sha256(content).hexdigest(), 8 * MEBIBYTE
    body = {"filename": "w.pt", "purpose": "checkpoint", "sha256": sha256, "part_bytes": size}
    opened = client.post("/v1/uploads", json=body | {"bytes": len(content)}).json()

    def send(number: int) -> None:
        piece = memoryview(content)[(number - 1) * size : number * size]
        pieces = (bytes(piece[at : at + MEBIBYTE]) for at in range(0, len(piece), MEBIBYTE))
        headers = {"Content-Length": str(len(piece))}
        url = opened["urls"]["part"].replace("{number}", str(number))
        client.put(url, content=pieces, headers=headers).raise_for_status()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(send, opened["missing_parts"]))
    completed = client.post(opened["urls"]["complete"]).json()
    digest = hashlib.sha256()
    with client.stream("GET", completed["file"]["url"]) as response:
        for chunk in response.iter_bytes():
            digest.update(chunk)
    assert digest.hexdigest() == sha256
