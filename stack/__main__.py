"""`python -m stack up`: run the service on this machine until Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import threading
from pathlib import Path

from stack.credentials import STACK_FILE
from stack.embedded import Stack, StackFailed
from store.settings import settings

WATCH_INTERVAL_S = 1.0


def main() -> None:
    """Parse the command line and run the stack."""
    parser = argparse.ArgumentParser(prog="python -m stack", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start everything and keep it running")
    up.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: 8000)")
    up.add_argument("--data-dir", type=Path, help="default: CSTAR_DATA_DIR, else .cstar")
    arguments = parser.parse_args()
    configuration = settings()
    if arguments.data_dir is not None:
        configuration = configuration.model_copy(update={"data_dir": arguments.data_dir})
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        with Stack(configuration, port=arguments.port) as stack:
            _say_ready(stack)
            _watch(stack, stop)
    except (StackFailed, OSError) as error:
        raise SystemExit(f"the stack could not be started: {error}") from error


def _say_ready(stack: Stack) -> None:
    print(f"ready: {stack.url}   (what it can do: {stack.url}/openapi.json)", flush=True)
    print(f"key and address for scripts: {stack.data_dir / STACK_FILE}", flush=True)
    print(f"logs: {stack.logs}   (Ctrl-C stops everything)", flush=True)


def _watch(stack: Stack, stop: threading.Event) -> None:
    while not stop.wait(WATCH_INTERVAL_S):
        for name in stack.revive():
            print(f"{name} had died and was started again", flush=True)
    print("stopping", flush=True)


if __name__ == "__main__":
    main()
