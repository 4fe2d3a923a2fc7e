"""`make up`, as its user sees it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from tests.e2e.watching import PATIENCE_S


def test_the_api_answers_as_soon_as_up_says_ready_and_everything_ends_on_sigterm(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-m", "stack", "up", "--port", "0", "--data-dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.match(r"ready: (http://127\.0\.0\.1:\d+) .*(http://.*/openapi\.json)", line)
        assert found, line
        url = found.group(1)
        assert httpx.get(f"{url}/readyz", timeout=PATIENCE_S).status_code == 200
        assert httpx.get(found.group(2), timeout=PATIENCE_S).json()["info"]
        printed = process.stdout.readline()
        key = json.loads((tmp_path / "stack.json").read_text())
        assert key["url"] == url
        assert printed == f"API key: {key['api_key']}\n"
        headers = {"Authorization": f"Bearer {key['api_key']}"}
        assert httpx.get(f"{url}/v1/jobs", headers=headers, timeout=PATIENCE_S).json()["data"] == []
        assert (tmp_path / "stack.json").stat().st_mode & 0o077 == 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=PATIENCE_S) == 0
