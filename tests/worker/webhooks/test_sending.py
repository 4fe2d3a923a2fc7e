"""One message on the wire: it goes to an address that was checked, and nowhere else."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from store.webhooks.deliveries import Outcome
from tests.support.hostile_urls import FORBIDDEN, FORBIDDEN_ADDRESSES
from tests.support.threads import PATIENCE_S
from tests.support.webhooks import Receiver
from tests.worker.webhooks.conftest import Resolver
from worker.webhooks import resolving, sending

NAME = "hooks.example.com"
BODY = b'{"type":"job.succeeded"}'
PUBLIC, ANOTHER = "93.184.216.34", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"


def post(url: str, *, allow_private: bool = False, timeout_s: float = 20.0) -> Outcome:
    headers = {"webhook-id": "msg_1"}
    return sending.post(url, headers, BODY, allow_private=allow_private, timeout_s=timeout_s)


def post_here(url: str, **options: Any) -> Outcome:
    """Send to a server of a test, which is on a private address and speaks http."""
    return post(url, allow_private=True, **options)


def test_a_message_arrives_as_it_was_given(receiver: Receiver) -> None:
    assert post_here(f"{receiver.url}?a=b") == Outcome(response_status=204)
    [request] = receiver.requests
    assert (request.path, request.body) == ("/hook?a=b", BODY)
    assert request.headers["webhook-id"] == "msg_1"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"


@pytest.mark.parametrize("url", FORBIDDEN.values(), ids=FORBIDDEN)
def test_a_hostile_url_is_not_connected_to_whoever_let_it_in(
    connections: list[str], url: str
) -> None:
    assert post(url) == Outcome(error="forbidden_address")
    assert connections == []


@pytest.mark.parametrize("address", FORBIDDEN_ADDRESSES)
def test_a_name_that_leads_inside_is_not_connected_to(
    resolver: Resolver, connections: list[str], address: str
) -> None:
    resolver.answers[NAME] = [[address]]
    assert post(f"https://{NAME}/") == Outcome(error="forbidden_address")
    assert (resolver.asked, connections) == ([NAME], [])


@pytest.mark.parametrize("answer", [[PUBLIC, "10.0.0.1"], ["::1", PUBLIC]])
def test_one_address_inside_forbids_them_all(
    resolver: Resolver, connections: list[str], answer: list[str]
) -> None:
    resolver.answers[NAME] = [answer]
    assert post(f"https://{NAME}/") == Outcome(error="forbidden_address")
    assert connections == []


def test_a_name_that_resolves_otherwise_a_moment_later_changes_nothing(
    resolver: Resolver, connections: list[str]
) -> None:
    resolver.answers[NAME] = [[PUBLIC], ["127.0.0.1"]]
    assert post(f"https://{NAME}/") == Outcome(error="connection_failed")
    assert connections == [PUBLIC]
    assert resolver.asked == [NAME]


def test_every_attempt_checks_anew(resolver: Resolver, connections: list[str]) -> None:
    resolver.answers[NAME] = [[PUBLIC], ["127.0.0.1"]]
    post(f"https://{NAME}/")
    assert post(f"https://{NAME}/") == Outcome(error="forbidden_address")
    assert connections == [PUBLIC]


def test_the_next_address_is_tried_when_one_does_not_answer(
    resolver: Resolver, connections: list[str]
) -> None:
    resolver.answers[NAME] = [[ANOTHER, PUBLIC, ANOTHER]]
    assert post(f"https://{NAME}/") == Outcome(error="connection_failed")
    assert connections == [ANOTHER, PUBLIC]


def test_the_name_is_what_the_host_header_says(resolver: Resolver, receiver: Receiver) -> None:
    resolver.answers[NAME] = [["127.0.0.1"]]
    assert post_here(f"http://{NAME}:{receiver.port}/").delivered
    assert receiver.requests[0].headers["host"] == f"{NAME}:{receiver.port}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(receiver: Receiver, status: int) -> None:
    receiver.answers(status, {"Location": f"{receiver.url}/elsewhere"})
    assert post_here(receiver.url) == Outcome(response_status=status)
    assert [request.path for request in receiver.requests] == ["/hook"]


def test_a_proxy_of_the_environment_is_not_used(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert post_here(receiver.url).delivered


def test_a_name_that_does_not_resolve_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_arguments: Any, **_options: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert post(f"https://{NAME}/") == Outcome(error="name_not_resolved")


class SlowResolver:
    """A server of names that fails when it is told to, and says nothing before."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answering = threading.Event()

    def __call__(self, host: str, *_arguments: Any, **_options: Any) -> Any:
        self.asked.append(host)
        self.answering.wait(PATIENCE_S)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowResolver]:
    """The resolver of this process, which has room for one lookup."""
    resolver = SlowResolver()
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    monkeypatch.setattr(resolving, "_free", threading.BoundedSemaphore(1))
    yield resolver
    resolver.answering.set()


def test_a_slow_server_of_names_is_given_up(slow: SlowResolver) -> None:
    assert post(f"https://{NAME}/", timeout_s=0.2) == Outcome(error="timeout")
    assert not slow.answering.is_set()


def test_lookups_that_were_given_up_are_bounded_and_leave_room_once_they_end(
    slow: SlowResolver,
) -> None:
    while not slow.asked:  # an attempt may have had no time left to ask
        post(f"https://{NAME}/", timeout_s=0.1)
    assert post("https://other.example.com/", timeout_s=0.1) == Outcome(error="timeout")
    assert "other.example.com" not in slow.asked
    slow.answering.set()
    assert post("https://other.example.com/") == Outcome(error="name_not_resolved")
    assert slow.asked == [NAME, "other.example.com"]


def test_a_port_where_nobody_listens_is_a_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert post_here(f"http://127.0.0.1:{port}/") == Outcome(error="connection_failed")


def read_all(connection: socket.socket) -> None:
    """Read the request: to close a connection with something unread would break it off."""
    read = b""
    while not read.endswith(BODY):
        more = connection.recv(65_536)
        if not more:
            raise ConnectionError("the other side has hung up")
        read += more


@contextmanager
def talking(talk: Callable[[socket.socket], object]) -> Iterator[str]:
    """Run a server that says whatever it likes to the first who connects; yields its URL."""

    def serve() -> None:
        try:
            connection, _ = server.accept()
            with connection:
                read_all(connection)
                talk(connection)
        except OSError:
            pass  # the other side has had enough, of a slow machine before it came

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        server.shutdown(socket.SHUT_RDWR)
        thread.join(20)
        assert not thread.is_alive()


def until_hung_up(connection: socket.socket, said: bytes, pause_s: float) -> None:
    """Say something again and again until nobody listens any more."""
    pause = threading.Event()
    while True:
        connection.sendall(said)
        pause.wait(pause_s)


def test_a_server_that_says_nothing_is_given_up() -> None:
    with talking(lambda connection: connection.recv(1)) as url:
        assert post_here(url, timeout_s=0.3) == Outcome(error="timeout")


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 100 Continue\r\n\r\n"], ids=["head", "interim"]
)
def test_a_server_that_goes_on_talking_is_given_up(said: bytes) -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(said)
        until_hung_up(connection, b"x" if said.endswith(b"X: ") else said, 0.02)

    with talking(drip) as url:
        assert post_here(url, timeout_s=0.5) == Outcome(error="timeout")


def test_of_an_answer_only_the_head_is_read() -> None:
    def flood(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
        until_hung_up(connection, b"x" * 65_536, 0.0)

    with talking(flood) as url:
        assert post_here(url) == Outcome(response_status=200)


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200"])
def test_what_is_no_answer_is_a_failure(said: bytes) -> None:
    with talking(lambda connection: connection.sendall(said)) as url:
        assert post_here(url) == Outcome(error="no_answer")


def retry_after(receiver: Receiver, value: str) -> float | None:
    receiver.answers(503, {"Retry-After": value})
    return post_here(receiver.url).retry_after_s


def test_retry_after_is_read_in_both_of_its_forms(receiver: Receiver) -> None:
    assert retry_after(receiver, "120") == 120
    found = retry_after(receiver, format_datetime(datetime.now(UTC) + timedelta(hours=1)))
    assert found == pytest.approx(3600, abs=60)
    assert retry_after(receiver, "Wed, 21 Oct 2015 07:28:00 GMT") == 0


@pytest.mark.parametrize("value", ["", "soon", "-5", "1e9", "nan", f"1 Jan {10**14} 00:00:00"])
def test_a_retry_after_that_cannot_be_read_is_left_alone(receiver: Receiver, value: str) -> None:
    assert retry_after(receiver, value) is None


def certificate(folder: Path, name: str) -> Path:
    """Write a certificate of `name`, signed by itself, with its key; returns the file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "server.pem"
    pem = serialization.Encoding.PEM
    file.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(pem)
    )
    return file


@contextmanager
def tls_server(file: Path, asked_for: list[str | None]) -> Iterator[int]:
    """Answer one request over TLS with 204; yields the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    context.sni_callback = lambda _socket, name, _context: asked_for.append(name)

    def serve() -> None:
        connection, _ = server.accept()
        try:
            with context.wrap_socket(connection, server_side=True) as secured:
                read_all(secured)
                secured.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        except OSError:
            pass  # the other side does not trust this one

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(20)


@pytest.mark.parametrize(
    ("certified", "trusted", "error"),
    [(NAME, True, None), (NAME, False, "tls_failed"), ("other.example.com", True, "tls_failed")],
)
def test_the_server_must_prove_the_name_of_the_url(
    *,
    resolver: Resolver,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    certified: str,
    trusted: bool,
    error: str | None,
) -> None:
    file, asked_for = certificate(tmp_path, certified), []
    resolver.answers[NAME] = [["127.0.0.1"]]
    if trusted:
        context = ssl.create_default_context(cafile=str(file))
        monkeypatch.setattr(sending, "_tls", lambda: context)
    with tls_server(file, asked_for) as port:
        assert post_here(f"https://{NAME}:{port}/").error == error
    assert asked_for == [NAME]
