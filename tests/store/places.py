"""Empty blob stores on local disk and on S3, and a way to see everything that lies in them."""

from __future__ import annotations

import logging
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from moto.server import ThreadedMotoServer

from store.blobs import BlobStore

BUCKET = "blobs"


@dataclass(frozen=True)
class Place:
    """A blob store; `contents` names everything in it, half-written objects too."""

    store: BlobStore
    contents: Callable[[], list[str]]
    overwrite: Callable[[str, bytes], object]


def local_place(folder: Path) -> Place:
    """Return an empty store in `folder`."""

    def contents() -> list[str]:
        files = (path for path in folder.rglob("*") if path.is_file())
        return sorted(path.relative_to(folder).as_posix() for path in files)

    def overwrite(name: str, content: bytes) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

    return Place(BlobStore(folder.as_uri()), contents, overwrite)


@dataclass(frozen=True)
class S3Server:
    """An S3 server on the loopback interface with one bucket."""

    url: str

    def variables(self) -> dict[str, str]:
        """Return the environment that leads a process here."""
        return {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ALLOW_HTTP": "true",
        }

    def stored(self) -> list[str]:
        """Return every object's full key, and that of every upload that is still open."""
        listings = [self.request("GET", BUCKET, query) for query in ("list-type=2", "uploads")]
        return sorted(re.findall(r"<Key>([^<]+)</Key>", "".join(listings)))

    def request(self, method: str, path: str, query: str = "", content: bytes = b"") -> str:
        """Send an unsigned request past the blob store."""
        with httpx.Client(trust_env=False, timeout=60.0) as http:
            answer = http.request(method, f"{self.url}/{path}?{query}", content=content)
        return answer.raise_for_status().text


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Serve S3 from this process, on 127.0.0.1 only (moto's own default is every interface)."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    try:
        server = S3Server("http://{}:{}".format(*moto.get_host_and_port()))
        server.request("PUT", BUCKET)
        yield server
    finally:
        moto.stop()


def s3_store(url: str, variables: dict[str, str]) -> BlobStore:
    """Open a store with these `AWS_*` variables and no other."""
    with pytest.MonkeyPatch.context() as environment:
        for name in os.environ:
            if name.startswith("AWS_"):
                environment.delenv(name)
        for name, value in variables.items():
            environment.setenv(name, value)
        return BlobStore(url)


def s3_place(server: S3Server) -> Place:
    """Return an empty store under a prefix of its own."""
    prefix = secrets.token_hex(8)

    def contents() -> list[str]:
        keys = (key for key in server.stored() if key.startswith(f"{prefix}/"))
        return [key.removeprefix(f"{prefix}/") for key in keys]

    def overwrite(name: str, content: bytes) -> None:
        server.request("PUT", f"{BUCKET}/{prefix}/{name}", content=content)

    store = s3_store(f"s3://{BUCKET}/{prefix}", server.variables())
    return Place(store, contents, overwrite)
