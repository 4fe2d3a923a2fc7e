"""`python -m stack up`: the service on this machine until Ctrl-C."""

from __future__ import annotations

import errno
import signal
import sys
import threading

from stack.credentials import STACK_FILE
from stack.embedded import Stack, StackFailed
from stack.lock import AlreadyRunning, held
from store.settings import Settings

WATCH_INTERVAL_S = 1.0


def up(settings: Settings, *, port: int) -> int:
    """Run the stack; 1 with the reason if it could not be started."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        with held(settings.data_dir.resolve()), Stack(settings, port=port) as stack:
            _say_ready(stack)
            _watch(stack, stop)
    except (AlreadyRunning, StackFailed, OSError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        step = "; --port takes another, 0 one that is free" if taken else ""
        print(f"the stack could not be started: {error}{step}", file=sys.stderr)
        return 1
    return 0


def _say_ready(stack: Stack) -> None:
    print(f"ready: {stack.url}   (what it can do: {stack.url}/openapi.json)", flush=True)
    print(f"API key: {stack.api_key}", flush=True)
    print(f"key and address for scripts: {stack.data_dir / STACK_FILE}", flush=True)
    print(f"logs: {stack.logs}   (Ctrl-C stops everything)", flush=True)


def _watch(stack: Stack, stop: threading.Event) -> None:
    while not stop.wait(WATCH_INTERVAL_S):
        for name in stack.revive():
            print(f"{name} had died and was started again", flush=True)
    print("stopping", flush=True)
