"""`python -m api`: serve on a host and port, or on a listening socket that was inherited."""

from __future__ import annotations

import argparse
import socket
import sys

import uvicorn
from uvicorn.protocols.http import httptools_impl

from api.dependencies import UnfitSecretKey, require_secret_key
from api.main import app
from store.logs import configure_logging
from store.settings import settings
from store.tracing import TracingUnavailable, configure_tracing

# How much of a body may come before it is asked for. uvicorn has 64 KiB, with which it pauses after
# every read from a socket, and no option.
BODY_AHEAD_BYTES = 1 << 19
SHUTDOWN_S = 5  # long polls and uploads in flight are cut after this


class Server(uvicorn.Server):
    """A server that ends its event streams when it stops, instead of waiting for their jobs."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop; the clients of streams come back to whoever serves next."""
        app.state.services.feeds.close()
        await super().shutdown(sockets)


def main() -> int:
    """Serve until told to stop; 2 when the settings do not do."""
    arguments = _parser().parse_args()
    try:
        require_secret_key(settings())
        configure_tracing("cstar-api", settings().traces)
    except (UnfitSecretKey, TracingUnavailable) as error:
        print(error, file=sys.stderr)
        return 2
    configure_logging("api", settings().log_format)
    httptools_impl.HIGH_WATER_LIMIT = BODY_AHEAD_BYTES  # type: ignore[attr-defined]
    config = uvicorn.Config(
        app,
        host=arguments.host,
        port=arguments.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    # Made here: uvicorn's own `fd` option takes every inherited socket for a Unix one.
    inherited = None if arguments.fd is None else [socket.socket(fileno=arguments.fd)]
    server = Server(config)
    server.run(sockets=inherited)
    return 0 if server.started else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m api", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--fd", type=int, help="number of an inherited listening socket")
    return parser


if __name__ == "__main__":
    sys.exit(main())
