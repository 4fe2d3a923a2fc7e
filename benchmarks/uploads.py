"""P14: a large file through the API, beside copying and hashing it on the same disk.

`python -m benchmarks.uploads` starts an API of its own over SQLite and a folder and uploads, in
turns with the local copy, files that are new to it: in one request, and in parts. Every side ends
with a second copy whose SHA-256 is known to be right. What the client has to hash itself is told
apart: the digest of the whole, without which no upload begins, and those of the parts, which it
computes beside that, as the SDK does (not with `--no-digests`). The SDK's own upload is timed as
well, with everything that it does.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import random
import secrets
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil

from benchmarks.machine import commit, hardware, load_average
from cstar_client import Client
from cstar_client.digests import Digests, field_value
from cstar_client.uploads import PART_BYTES
from stack.children import Child
from store.database import Database
from store.keys import create_key, create_tenant
from store.migrate import upgrade

MEGABYTE = 1_000_000
CHUNK_BYTES = 1 << 20
PIECE_BYTES = 1 << 18
READY_WITHIN_S = 60.0
_own = threading.local()
LEAST_RATIO, GOAL_RSS_BYTES = 0.4, 64 << 20


@dataclass(frozen=True)
class Load:
    """How much: bytes of a file, connections, rounds, and whether parts carry digests.

    Before each round it waits, at most `patience_s`, until others leave the processors alone.
    """

    file_bytes: int = 500 * MEGABYTE
    connections: int = 4
    rounds: int = 5
    digests: bool = True
    seed: int = 0
    patience_s: float = 60.0


@dataclass(frozen=True)
class Round:
    """Seconds of one file; `upload_s` (in parts) from the first request to the file's document.

    `single_s` is that of one `PUT /v1/files`; `sdk_s` that of the SDK, its own hashes included.

    `..._cpu_s` is processor time, of all that took part; `others` how many processors everybody
    else on the machine kept busy meanwhile.
    """

    copy_s: float
    hash_s: float
    flush_s: float
    upload_s: float
    complete_s: float
    client_hash_s: float
    single_s: float
    sdk_s: float
    local_cpu_s: float
    upload_cpu_s: float
    others: float

    @property
    def ratio(self) -> float:
        """Speed of the upload beside copying and hashing."""
        return (self.copy_s + self.hash_s) / self.upload_s

    @property
    def ratio_single(self) -> float:
        """Speed of an upload in one request beside copying and hashing."""
        return (self.copy_s + self.hash_s) / self.single_s

    @property
    def ratio_sdk(self) -> float:
        """Speed of the SDK's upload, with its own hashes, beside copying and hashing."""
        return (self.copy_s + self.hash_s) / self.sdk_s

    @property
    def ratio_beside_flushed(self) -> float:
        """Speed of the upload beside copying, hashing and flushing to the disk, as it does."""
        return (self.copy_s + self.hash_s + self.flush_s) / self.upload_s

    @property
    def ratio_with_client_hash(self) -> float:
        """The same with the time in which the client hashes its file before it begins."""
        return (self.copy_s + self.hash_s) / (self.upload_s + self.client_hash_s)


class Memory:
    """The most resident memory of a process, above what it had at first."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.before = self.peak = process.memory_info().rss

    @property
    def growth(self) -> int:
        """Bytes of it."""
        return int(self.peak - self.before)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            self.peak = max(self.peak, self._process.memory_info().rss)


def measure(load: Load) -> dict[str, Any]:
    """Upload and copy in turns; returns what was found as plain data."""
    with tempfile.TemporaryDirectory() as name, serving(Path(name)) as (client, process):
        folder = Path(name)
        upload(client, file_of(folder, 32 * MEGABYTE, seed=-1), load)  # what is loaded once
        with Memory(process) as memory:
            numbers = range(load.rounds)
            rounds = [one_round(client, process, folder, load, number) for number in numbers]
    found = [
        asdict(one)
        | {"ratio": one.ratio, "ratio_single": one.ratio_single, "ratio_sdk": one.ratio_sdk}
        for one in rounds
    ]
    quietest = min(rounds, key=lambda one: one.others)
    return {
        "machine": hardware(),
        "load_average": load_average(),
        "scheduling": "as usual" if os.sched_getscheduler(0) == os.SCHED_OTHER else "real time",
        "commit": commit(),
        "python": sys.version.split()[0],
        **asdict(load),
        "rounds_measured": found,
        "ratio": median(one.ratio for one in rounds),
        "ratio_single": median(one.ratio_single for one in rounds),
        "ratio_sdk": median(one.ratio_sdk for one in rounds),
        "ratio_of_quietest_round": quietest.ratio,
        "ratio_beside_flushed": median(one.ratio_beside_flushed for one in rounds),
        "ratio_with_client_hash": median(one.ratio_with_client_hash for one in rounds),
        "upload_mb_per_s": load.file_bytes / MEGABYTE / median(one.upload_s for one in rounds),
        "rss_before_bytes": memory.before,
        "rss_growth_bytes": memory.growth,
    }


def one_round(
    client: httpx.Client, process: psutil.Process, folder: Path, load: Load, number: int
) -> Round:
    """Copy and hash a file, and upload it; the other way round in every second round."""
    path = file_of(folder, load.file_bytes, seed=load.seed + number)
    wait_for_quiet(load.patience_s)
    local = remote = (0.0, 0.0, 0.0)
    single = sdk = 0.0
    local_cpu, remote_cpu, begun = Processors(), Processors(), time.perf_counter()
    before = busy_s() - cpu_s(process)
    sides = ("local", "single", "sdk", "remote")
    for side in sides if number % 2 == 0 else reversed(sides):
        os.sync()  # neither pays for what the other has left to write
        if side == "local":
            with local_cpu.counted(process):
                local = copy_and_hash(path, folder / "copy")
        elif side == "single":
            single = upload_at_once(client, path)
            forget_stored(folder)
        elif side == "sdk":
            sdk = upload_by_sdk(client, path)
            forget_stored(folder)
        else:
            with remote_cpu.counted(process):
                remote = upload(client, path, load)
            forget_stored(folder)
    others = (busy_s() - cpu_s(process) - before) / (time.perf_counter() - begun)
    path.unlink()
    return Round(*local, *remote, single, sdk, local_cpu.seconds, remote_cpu.seconds, others)


def forget_stored(folder: Path) -> None:
    """Remove the stored bytes, as the copy is: all sides find used memory."""
    for stored in (folder / "blobs" / "sha256").rglob("*"):
        if stored.is_file():
            stored.unlink()


class Processors:
    """Processor time of this process and the API's in a block."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def counted(self, process: psutil.Process) -> Iterator[None]:
        """Count what the block takes."""
        before = cpu_s(process)
        yield
        self.seconds = cpu_s(process) - before


def cpu_s(process: psutil.Process) -> float:
    """Return the processor time of this process and another so far."""
    both = (process.cpu_times(), psutil.Process().cpu_times())
    return float(sum(times.user + times.system for times in both))


def busy_s() -> float:
    """Return for how long the processors of the machine have been busy, all together."""
    times = psutil.cpu_times()
    return float(times.user + times.system + times.nice + times.irq + times.softirq)


def wait_for_quiet(patience_s: float) -> None:
    """Return when the processors have been idle for a second but for a tenth, or after that."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline and psutil.cpu_percent(1.0) > 10.0:
        pass


def copy_and_hash(path: Path, target: Path) -> tuple[float, float, float]:
    """Copy a file as the operating system does it best, hash and flush it; seconds of each."""
    begun = time.perf_counter()
    shutil.copyfile(path, target)
    copied = time.perf_counter()
    sha256_of(target)
    hashed = time.perf_counter()
    with target.open("rb") as file:
        os.fsync(file.fileno())
    flushed = time.perf_counter()
    target.unlink()
    return copied - begun, hashed - copied, flushed - hashed


def upload(client: httpx.Client, path: Path, load: Load) -> tuple[float, float, float]:
    """Upload a file; seconds of all, of completing, and of the hash before."""
    begun = time.perf_counter()
    digests = Digests.of(path, PART_BYTES) if load.digests else None
    sha256 = digests.whole.hex() if digests else sha256_of(path)
    hashed = time.perf_counter()
    body = {"filename": "file.npz", "purpose": "dataset", "sha256": sha256}
    opened = client.post("/v1/uploads", json=body | {"bytes": path.stat().st_size})
    document = opened.raise_for_status().json()
    with ThreadPoolExecutor(load.connections) as threads:
        numbers = document["missing_parts"]
        for _ in threads.map(lambda n: send(client, path, document, n, digests), numbers):
            pass
    sent = time.perf_counter()
    completed = client.post(document["urls"]["complete"]).raise_for_status().json()
    over = time.perf_counter()
    assert completed["file"]["sha256"] == sha256
    return over - hashed, over - sent, hashed - begun


def upload_at_once(client: httpx.Client, path: Path) -> float:
    """Upload a file by one PUT under a name of its own; seconds from request to document."""
    value = base64.b64encode(bytes.fromhex(sha256_of(path))).decode()
    begun = time.perf_counter()
    client.put(
        "/v1/files",
        params={"filename": "single.npz", "purpose": "dataset"},
        content=pieces_of(path),
        headers={
            "Content-Length": str(path.stat().st_size),
            "Content-Digest": f"sha-256=:{value}:",
        },
    ).raise_for_status()
    return time.perf_counter() - begun


def upload_by_sdk(client: httpx.Client, path: Path) -> float:
    """Upload a file as a user of the SDK does; seconds of all."""
    key = client.headers["Authorization"].removeprefix("Bearer ")
    begun = time.perf_counter()
    with Client(str(client.base_url), key) as sdk:
        sdk.files.upload(path, purpose="dataset")
    return time.perf_counter() - begun


def send(
    client: httpx.Client, path: Path, document: dict[str, Any], number: int, digests: Digests | None
) -> None:
    """Send a part, with its digest if there is one."""
    content = part_of(path, document["part_bytes"], number)
    headers = {"Content-Length": str(len(content))}
    if digests:
        assert digests.part_bytes == document["part_bytes"]
        headers["Content-Digest"] = field_value(digests.parts[number - 1])
    url = document["urls"]["part"].replace("{number}", str(number))
    client.put(url, content=pieces(content), headers=headers).raise_for_status()


def part_of(path: Path, size: int, number: int) -> memoryview:
    """Read a part, into memory that each thread uses again."""
    if not hasattr(_own, "buffer"):
        _own.buffer = memoryview(bytearray(size))
    with path.open("rb", buffering=0) as file:
        file.seek((number - 1) * size)
        return memoryview(_own.buffer[: file.readinto(_own.buffer)])


def pieces(content: memoryview) -> Iterator[Any]:
    """Yield what a socket takes at once: httpx copies all that is left after each send."""
    for start in range(0, len(content), PIECE_BYTES):
        yield content[start : start + PIECE_BYTES]


def pieces_of(path: Path) -> Iterator[Any]:
    """Yield a file in pieces."""
    buffer = memoryview(bytearray(PIECE_BYTES))
    with path.open("rb", buffering=0) as file:
        while read := file.readinto(buffer):
            yield buffer[:read]


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_of(folder: Path, size: int, *, seed: int) -> Path:
    """Write a file of random bytes that begins as a zip does."""
    path = folder / "file"
    generator = random.Random(seed)
    with path.open("wb") as file:
        file.write(b"PK\x03\x04")
        while (left := size - file.tell()) > 0:
            file.write(generator.randbytes(min(left, CHUNK_BYTES)))
    return path


@contextmanager
def serving(folder: Path) -> Iterator[tuple[httpx.Client, psutil.Process]]:
    """Run an API over SQLite and a folder; yields a client with a key, and its process."""
    secret = secrets.token_hex(32)
    database = Database(f"sqlite:///{folder / 'cstar.db'}")
    upgrade(database)
    with database.writing() as session:
        tenant = create_tenant(session, "uploads").id
        key = create_key(session, tenant_id=tenant, name="uploads", secret_key=secret)
    environment = {"CSTAR_DATA_DIR": str(folder), "CSTAR_SECRET_KEY": secret}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        descriptor = listener.fileno()
        command = [sys.executable, "-m", "api", "--fd", str(descriptor)]
        child = Child("api", command, folder / "api.log", environment, inherited=[descriptor])
        child.start()
        assert child.process is not None
        try:
            with httpx.Client(
                base_url=f"http://127.0.0.1:{listener.getsockname()[1]}",
                headers={"Authorization": f"Bearer {key}"},
                timeout=READY_WITHIN_S,
                trust_env=False,
            ) as client:
                client.get("/healthz").raise_for_status()
                yield client, psutil.Process(child.process.pid)
        finally:
            child.stop(grace_s=20.0)
            database.dispose()


def page(runs: list[dict[str, Any]]) -> str:
    """Return the runs as a page."""
    text = "# P14: uploads\n\n"
    text += (
        "`python -m benchmarks.uploads`. The speed of an upload through the API (its first request "
        "to the file's document) beside that of copying and hashing the same file on the same disk "
        "in the same round: in one request (`PUT /v1/files`, hashed while it arrives), and in "
        "parts, each checked against its digest while the whole is hashed beside. What the client "
        "hashes before it begins is a row of its own, and so is the SDK with all that it does. At "
        f"least {LEAST_RATIO} is asked for of an upload of 500 MB, and less than "
        f"{GOAL_RSS_BYTES >> 20} MiB of growth of the API's resident memory. Where other work "
        "is on the machine, `chrt -r 1` before the command keeps it out of both sides.\n\n"
    )
    text += "| | " + " | ".join(f"run {n}" for n in range(1, len(runs) + 1)) + " |\n"
    text += "|---|" + "---|" * len(runs) + "\n"
    for label, cell in _CELLS.items():
        text += f"| {label} | " + " | ".join(cell(run) for run in runs) + " |\n"
    return text


def _spread(run: dict[str, Any], name: str) -> str:
    values = [one[name] for one in run["rounds_measured"]]
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


_CELLS: dict[str, Callable[[dict[str, Any]], str]] = {
    "machine": lambda run: f"{run['machine']}, load average {run['load_average']}",
    "scheduling of both sides": lambda run: run["scheduling"],
    "commit, Python, seed": lambda run: f"{run['commit']}, {run['python']}, {run['seed']}",
    "file, connections, rounds": lambda run: (
        f"{run['file_bytes'] // MEGABYTE} MB, {run['connections']}, {run['rounds']}"
    ),
    "a digest with every part": lambda run: "yes" if run["digests"] else "no",
    "copy, s": lambda run: _spread(run, "copy_s"),
    "hash of the copy, s": lambda run: _spread(run, "hash_s"),
    "flushing the copy, s": lambda run: _spread(run, "flush_s"),
    "upload in one request, s": lambda run: _spread(run, "single_s"),
    "upload in parts, s": lambda run: _spread(run, "upload_s"),
    "upload by the SDK, its own hashes included, s": lambda run: _spread(run, "sdk_s"),
    "of which completing, s": lambda run: _spread(run, "complete_s"),
    "**in one request / (copy + hash), in speed**": lambda run: (
        f"**{_spread(run, 'ratio_single')}**"
    ),
    "**in parts / (copy + hash), in speed**": lambda run: f"**{_spread(run, 'ratio')}**",
    "the SDK, with all that it does, in speed": lambda run: _spread(run, "ratio_sdk"),
    "in parts beside a copy that is flushed to the disk as the upload is": lambda run: (
        f"{run['ratio_beside_flushed']:.2f}"
    ),
    "in parts, with the client's own hash before it begins": lambda run: (
        f"{run['ratio_with_client_hash']:.2f}"
    ),
    "in parts, in the round that others disturbed least": lambda run: (
        f"{run['ratio_of_quietest_round']:.2f}"
    ),
    "processors that others kept busy": lambda run: _spread(run, "others"),
    "processor time of copy and hash, s": lambda run: _spread(run, "local_cpu_s"),
    "processor time of client (with its own hash) and API, s": lambda run: _spread(
        run, "upload_cpu_s"
    ),
    "in parts, MB/s": lambda run: f"{run['upload_mb_per_s']:.0f}",
    "**growth of the API's peak memory**": lambda run: (
        f"**{run['rss_growth_bytes'] / (1 << 20):.0f} MiB** "
        f"(from {run['rss_before_bytes'] / (1 << 20):.0f})"
    ),
}


def main() -> None:
    """Measure, and write JSON and page; exit with 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = Load()
    parser.add_argument("--megabytes", type=int, default=default.file_bytes // MEGABYTE)
    parser.add_argument("--connections", type=int, default=default.connections)
    parser.add_argument("--rounds", type=int, default=default.rounds)
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--patience", type=float, default=default.patience_s, help="seconds")
    parser.add_argument("--no-digests", action="store_true", help="send parts without digests")
    parser.add_argument("--runs", type=int, default=2, help="each with an API of its own")
    parser.add_argument("--json", type=Path, help="write the figures, and a page beside them")
    given = parser.parse_args()
    load = Load(
        file_bytes=given.megabytes * MEGABYTE,
        connections=given.connections,
        rounds=given.rounds,
        digests=not given.no_digests,
        seed=given.seed,
        patience_s=given.patience,
    )
    runs = [measure(load) for _ in range(given.runs)]
    print(page(runs))
    if given.json:
        given.json.write_text(json.dumps(runs, indent=1) + "\n")
        given.json.with_suffix(".md").write_text(page(runs))
    met = all(
        min(run["ratio"], run["ratio_single"]) >= LEAST_RATIO
        and run["rss_growth_bytes"] < GOAL_RSS_BYTES
        for run in runs
    )
    sys.exit(not met)


if __name__ == "__main__":
    main()
