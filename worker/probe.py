"""`python -m worker.probe`: how a runner would be confined here, found out by starting one.

Prints one JSON object: `sandbox` (`bubblewrap` or `rlimits`), and what a process in it could do
that it must not: `network`, `writes` (outside its folder), `environment` (settings of the service).
"""

from __future__ import annotations

import json
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

from worker.executors import SandboxUnavailable, end, sandbox_name, start_confined

PATIENCE_S = 10.0
SCRIPT = """
import json, os, socket, sys
port, outside = int(sys.argv[1]), sys.argv[2]
def possible(act):
    try: act()
    except OSError: return False
    return True
print(json.dumps({
    "network": possible(lambda: socket.create_connection(("127.0.0.1", port), 2).close()),
    "writes": possible(lambda: open(outside, "w").close()),
    "environment": any(name.startswith(("CSTAR_", "AWS_")) and name != "CSTAR_SUPERVISOR_PID"
                       for name in os.environ),
}))
"""


def probe() -> dict[str, Any]:
    """Start a process as a runner is started and return what it could do.

    Raises SandboxUnavailable, and RuntimeError when the process did not end well.
    """
    with tempfile.TemporaryDirectory() as outside, tempfile.TemporaryDirectory() as inside:
        folder, log = Path(inside), Path(inside) / "log"
        with socket.create_server(("127.0.0.1", 0)) as listening:
            arguments = [str(listening.getsockname()[1]), str(Path(outside) / "written")]
            command = [sys.executable, "-I", "-S", "-c", SCRIPT, *arguments]
            process = start_confined(command, folder, log)
            assert process.stdout is not None
            with process.stdout as pipe:
                said = pipe.read()
            if end(process, patience_s=PATIENCE_S) != 0:
                raise RuntimeError(log.read_text(errors="replace").strip() or "it was killed")
    return {"sandbox": sandbox_name(), **json.loads(said)}


def main() -> int:
    """Print what was found; 1 with the reason when nothing could be started."""
    try:
        print(json.dumps(probe()))
    except (SandboxUnavailable, RuntimeError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
