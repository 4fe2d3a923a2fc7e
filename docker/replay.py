"""`python docker/replay.py Dockerfile.api`: the steps of an image, without Docker.

Copies what `.dockerignore` lets through into an empty folder, makes a clean virtual environment,
runs the `pip install` steps there, and then the modules of CMD (`--help`) without the sources at
hand. Steps that need root (apt-get, useradd) are named and left out. Exit status 0 if all works.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> int:
    """Replay one Dockerfile."""
    parser = argparse.ArgumentParser(prog="docker/replay.py", description=__doc__)
    parser.add_argument("dockerfile", help="name of a file in this folder")
    text = (ROOT / "docker" / parser.parse_args().dockerfile).read_text("utf-8")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "src").mkdir()
        venv.create(folder / "venv", with_pip=True)
        for step in steps(text):
            replay(step, folder)
        run_command(text, folder)
    return 0


def steps(text: str) -> list[str]:
    """Return the COPY and RUN steps, each on one line."""
    joined = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    return re.findall(r"^(?:COPY|RUN) .*$", joined, flags=re.MULTILINE)


def replay(step: str, folder: Path) -> None:
    """Carry out one step; raises CalledProcessError, or SystemExit for what is not let through."""
    kind, _, rest = step.partition(" ")
    if kind == "COPY":
        copy(rest.split()[:-1], folder / "src")
    elif rest.startswith("pip install"):
        print(f"run:  {rest}", flush=True)
        command = rest.replace("pip", f"{folder}/venv/bin/python -m pip", 1)
        shell = ["sh", "-euc", command.replace("pip install", "pip install --quiet", 1)]
        subprocess.run(shell, cwd=folder / "src", check=True)
    else:
        print(f"left: {rest[:70]}", flush=True)


def copy(sources: list[str], target: Path) -> None:
    """Copy files and folders that `.dockerignore` names."""
    allowed = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text("utf-8"), re.MULTILINE)
    for source in sources:
        if source not in allowed:
            raise SystemExit(f".dockerignore keeps {source} from the builder")
        path = ROOT / source
        if path.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(path, target / source, ignore=ignored)
        else:
            shutil.copy(path, target / path.name)


def run_command(text: str, folder: Path) -> None:
    """Start what CMD starts with `--help`, from a folder without any source."""
    command = ast.literal_eval(re.findall(r"^CMD (\[.*\])$", text.replace("\\\n", " "), re.M)[-1])
    option = "-m" if command[0] == "python" else "-A"
    kept = command[: command.index(option) + 2] + (["worker"] if option == "-A" else [])
    environment = {"PATH": os.defpath, "CSTAR_BROKER_URL": "redis://127.0.0.1:1/0"}
    program = [f"{folder}/venv/bin/{kept[0]}", *kept[1:], "--help"]
    subprocess.run(program, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    print(f"runs: {' '.join(kept)}", flush=True)
    doctor = [f"{folder}/venv/bin/python", "-m", "stack", "doctor"]
    done = subprocess.run(doctor, cwd=folder, env=environment, check=False)
    print(f"python -m stack doctor ended with {done.returncode} (1: there is no broker here)")


if __name__ == "__main__":
    sys.exit(main())
