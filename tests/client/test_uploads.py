"""Uploads in parts: over a line that breaks, after a kill of the client, and of changed files."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.uploads import service as service_of_uploads
from cstar_client import Client, ConnectionFailed, InvalidRequest, Retries, digests, uploads
from cstar_client.transport import Transport
from store.blobs import BlobStore
from tests.api.world import archive
from tests.client.conftest import QUICKLY, Access, Service, new_access, served
from tests.e2e.watching import PATIENCE_S, until
from tests.store.places import BUCKET, s3_server
from tests.support.breaking import breaking

SIZE = 20 << 20
PART_BYTES = 1 << 20
CHECKOUT = Path(__file__).parents[2]
# More than it sends at once, of which at least one part is through when it stands still.
KILLED_AT = uploads.PARALLEL * PART_BYTES + 1
PERSISTENT = Retries(first_s=0.01, most_s=0.05)
STANDING_STILL = """
import signal, sys, threading
from cstar_client import Client
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
def stand_still(done, total):
    if done >= int(sys.argv[4]):
        print("here", flush=True)
        threading.Event().wait()
with Client(sys.argv[1], sys.argv[2]) as client:
    client.files.upload(sys.argv[3], purpose="dataset", on_progress=stand_still)
"""
MEASURED = """
import resource, sys
from cstar_client import Client
with Client(sys.argv[1], sys.argv[2]) as client:
    next(client.files.list(), None)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    client.files.upload(sys.argv[3], purpose="dataset")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_of_uploads, "PART_BYTES", PART_BYTES)


@pytest.fixture
def large_file(tmp_path: Path) -> Path:
    path = tmp_path / "images.npz"
    path.write_bytes(archive() + os.urandom(SIZE - len(archive())))
    return path


def stored(service: Service, file: Any) -> str:
    """Return the SHA-256 of the bytes that the service has for a file."""
    digest = hashlib.sha256()
    for chunk in BlobStore(service.settings.resolved_blob_url).read(file["sha256"]):
        digest.update(chunk)
    return digest.hexdigest()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def statuses(client: Client) -> list[str]:
    return [one["status"] for one in client.transport.get("/v1/uploads")["data"]]


def test_a_large_file_goes_in_parts_and_arrives_as_it_is(
    client: Client, service: Service, large_file: Path
) -> None:
    told: list[tuple[int, int]] = []
    file = client.files.upload(
        large_file, purpose="dataset", on_progress=lambda *done: told.append(done)
    )

    assert file["bytes"] == SIZE
    assert stored(service, file) == sha256(large_file)
    assert told[-1] == (SIZE, SIZE)
    assert statuses(client) == ["completed"]


def test_a_line_that_breaks_again_and_again_delays_it(
    access: Access, service: Service, large_file: Path
) -> None:
    with (
        breaking(access.url, every=3 * PART_BYTES) as line,
        Client(line.url, access.api_key, retries=PERSISTENT) as client,
    ):
        file = client.files.upload(large_file, purpose="dataset")

    assert stored(service, file) == sha256(large_file)
    assert line.cuts >= SIZE // (3 * PART_BYTES)


def test_after_a_kill_of_the_client_the_next_one_goes_on(
    access: Access, client: Client, service: Service, large_file: Path
) -> None:
    arguments = [access.url, access.api_key, str(large_file), str(KILLED_AT)]
    command = [sys.executable, "-c", STANDING_STILL, *arguments]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, cwd=CHECKOUT) as process:
        assert process.stdout.readline() == b"here\n"
        (listed,) = client.transport.get("/v1/uploads")["data"]
        url = f"/v1/uploads/{listed['id']}"
        arrived = until(lambda: client.transport.get(url)["parts"], "a part")
        process.kill()
    assert client.transport.get(url)["missing_parts"]

    told: list[int] = []
    file = client.files.upload(
        large_file, purpose="dataset", on_progress=lambda done, _: told.append(done)
    )
    assert stored(service, file) == sha256(large_file)
    assert told[0] >= arrived[0]["bytes"]
    assert statuses(client) == ["completed"], "it was begun anew"


def test_ctrl_c_waits_for_no_part_that_stands_still(access: Access, large_file: Path) -> None:
    arguments = [access.url, access.api_key, str(large_file), str(KILLED_AT)]
    command = [sys.executable, "-c", STANDING_STILL, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=CHECKOUT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(timeout=PATIENCE_S) == -signal.SIGINT
        finally:
            process.kill()


def test_bytes_that_are_there_are_not_sent_again(client: Client, large_file: Path) -> None:
    client.files.upload(large_file, purpose="dataset")
    told: list[int] = []
    renamed = large_file.rename(large_file.with_name("again.npz"))
    file = client.files.upload(
        renamed, purpose="dataset", on_progress=lambda done, _: told.append(done)
    )

    assert file["filename"] == "again.npz"
    assert told == [SIZE]


@pytest.mark.parametrize("hashed_ahead", [True, False])
def test_a_file_that_changes_meanwhile_is_refused_and_the_next_attempt_is_a_new_one(
    client: Client,
    service: Service,
    large_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    hashed_ahead: bool,
) -> None:
    now = large_file.read_bytes()
    before = now[:-1] + bytes([now[-1] ^ 1])
    of_before = digests.Digests(
        hashlib.sha256(before).digest(),
        [hashlib.sha256(before[n : n + PART_BYTES]).digest() for n in range(0, SIZE, PART_BYTES)],
        PART_BYTES if hashed_ahead else 1,
    )
    monkeypatch.setattr(digests.Digests, "of", lambda *_: of_before)
    with pytest.raises(InvalidRequest) as refusal:
        client.files.upload(large_file, purpose="dataset")
    assert refusal.value.code == "digest_mismatch"
    assert statuses(client) == ["cancelled"]

    monkeypatch.undo()
    file = client.files.upload(large_file, purpose="dataset")
    assert stored(service, file) == sha256(large_file)


@pytest.mark.parametrize("part_bytes", [PART_BYTES, 2 * PART_BYTES])
def test_parts_are_hashed_ahead_as_the_service_is_expected_to_cut_them(
    client: Client,
    service: Service,
    large_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    part_bytes: int,
) -> None:
    monkeypatch.setattr(uploads, "PART_BYTES", part_bytes)
    hashed: list[int] = []

    def counted(path: Path, *, start: int, length: int) -> bytes:
        hashed.append(length)
        return sha256_of_piece(path, start=start, length=length)

    sha256_of_piece = digests.sha256
    for module in (digests, uploads):
        monkeypatch.setattr(module, "sha256", counted)
    file = client.files.upload(large_file, purpose="dataset")
    assert stored(service, file) == sha256(large_file)
    hashed.remove(SIZE)  # the whole
    ahead = -(-SIZE // part_bytes)
    again = 0 if part_bytes == PART_BYTES else -(-SIZE // PART_BYTES)
    assert len(hashed) == ahead + again


def test_the_clients_memory_does_not_grow_with_the_file(access: Access, tmp_path: Path) -> None:
    path = tmp_path / "zeros.npz"
    path.write_bytes(archive())
    os.truncate(path, 160 << 20)
    command = [sys.executable, "-c", MEASURED, access.url, access.api_key, str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=CHECKOUT)

    assert int(ended.stdout) < 40 << 10, "KiB"


@pytest.fixture
def over_s3(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """The API over a bucket that takes parts itself."""
    with s3_server() as bucket:
        for name, value in bucket.variables().items():
            monkeypatch.setenv(name, value)
        changes = {"blob_url": f"s3://{BUCKET}/client", "data_dir": tmp_path / "s3"}
        with served(service.settings.model_copy(update=changes), service.database) as serving:
            yield serving


def test_where_the_bucket_takes_parts_they_go_there_without_the_key(
    over_s3: Service, large_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    through_the_service: list[str] = []
    send = Transport.send

    def noting(self: Transport, method: str, path: str, **rest: Any) -> Any:
        through_the_service.append(path)
        return send(self, method, path, **rest)

    monkeypatch.setattr(Transport, "send", noting)
    access = new_access(over_s3)
    with Client(access.url, access.api_key, retries=QUICKLY) as client:
        file = client.files.upload(large_file, purpose="dataset")

    assert stored(over_s3, file) == sha256(large_file)
    assert not [path for path in through_the_service if "/parts/" in path]


def test_parts_that_the_bucket_does_not_take_go_through_the_service(
    over_s3: Service, large_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def refused(self: Transport, url: str, **_: Any) -> None:
        tried.append(url)
        raise ConnectionFailed("no way from here", sent=False)

    monkeypatch.setattr(Transport, "put_elsewhere", refused)
    access = new_access(over_s3)
    with Client(access.url, access.api_key, retries=QUICKLY) as client:
        file = client.files.upload(large_file, purpose="dataset")

    assert stored(over_s3, file) == sha256(large_file)
    assert len(tried) <= uploads.PARALLEL, "it kept trying"
