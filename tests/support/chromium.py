"""A headless Chromium, driven over a pipe by the Chrome DevTools Protocol: no package, no port.

https://chromedevtools.github.io/devtools-protocol/ ; messages are JSON that ends in a zero byte,
and go through the file descriptors 3 and 4 of the browser (`--remote-debugging-pipe`).
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.requirements import require

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
_READ_END, _WRITE_END = 3, 4


def required_chromium() -> str:
    """The browser's path; without one the test is reported as not run."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    require("Chromium", found is not None, f"none of {', '.join(NAMES)} is on PATH")
    assert found is not None
    return found


class Browser:
    """One page of a running browser. Raises RuntimeError when a command fails."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = os.fdopen(to_browser, "wb"), os.fdopen(from_browser, "rb")
        self._numbers = itertools.count(1)
        self._rest = b""
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; what happens meanwhile goes to `events`."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        while (answer := self._next()).get("id") != number:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def wait_for(self, method: str) -> None:
        """Wait until an event of this name has come since `events` was last emptied."""
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self._next())

    def open(self, url: str) -> None:
        """Load a page, and forget what happened before."""
        self.events.clear()
        self.call("Page.navigate", url=url)
        self.wait_for("Page.loadEventFired")

    def screen(self, width: int, *, scheme: str = "light", media: str = "") -> None:
        """Take the width of a telephone or a desk, the colours of day or night, or paper.

        `media` "print" lays the page out as for paper; empty leaves it to what is done with it.
        """
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=900, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(str(found["exceptionDetails"]))
        return found["result"].get("value")

    def picture(self) -> bytes:
        """The whole page as PNG."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])

    def pdf(self) -> bytes:
        """The page as it would be printed."""
        printed = self.call("Page.printToPDF", printBackground=True, preferCSSPageSize=True)
        return base64.b64decode(printed["data"])

    def complaints(self) -> list[str]:
        """What the console says of level warning or worse, and every exception."""
        found = []
        for event in self.events:
            told: Mapping[str, Any] = event.get("params", {})
            if event.get("method") == "Log.entryAdded" and told["entry"]["level"] != "info":
                found.append(told["entry"]["text"])
            if event.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
                found.append(json.dumps(told))
        return found

    def requests(self) -> list[str]:
        """The addresses asked for since the page was opened."""
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            chunk = os.read(self._from.fileno(), 1 << 20)
            if not chunk:
                raise RuntimeError("the browser has gone")
            self._rest += chunk
        message, self._rest = self._rest.split(b"\0", 1)
        decoded: dict[str, Any] = json.loads(message)
        return decoded


@contextmanager
def browser(executable: str) -> Iterator[Browser]:
    """A fresh browser with an empty profile; it and all it started are ended afterwards."""
    commands_in, commands_out = os.pipe()
    answers_in, answers_out = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = _start(executable, Path(profile), commands_in, answers_out)
        os.close(commands_in)
        os.close(answers_out)
        try:
            yield Browser(commands_out, answers_in)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _start(executable: str, profile: Path, commands: int, answers: int) -> subprocess.Popen[bytes]:
    """Start it in a process group of its own, with the pipes as its descriptors 3 and 4."""
    # A shell moves the descriptors, as Popen can only pass them on under their own numbers.
    script = f'exec "$@" {_READ_END}<&{commands} {_WRITE_END}>&{answers}'
    return subprocess.Popen(
        ["/bin/bash", "-c", script, "bash", executable, *FLAGS, f"--user-data-dir={profile}"],
        pass_fds=(commands, answers),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
