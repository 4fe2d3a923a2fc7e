"""What the README promises a new user, run as it stands there.

The test gives the names of files it has and their normalisation, a free port, and a job of the
size for a test; every other word is the README's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.demo.digits import MEAN, STD, load_digits
from tests.e2e.requests import CHECKPOINT

README = Path(__file__).parents[2] / "README.md"
OPTIONS = {"admm_epochs": 1, "finetune_epochs": 1, "examples_per_epoch": 256}
EXAMPLES = {"examples": 32, "autoattack_examples": 4, "probe_examples": 8}
IN_PYTHON = {
    "resnet20.th": "digits.safetensors",
    "cifar10.npz": "digits.npz",
    "[0.485, 0.456, 0.406]": str(list(MEAN)),
    "[0.229, 0.224, 0.225]": str(list(STD)),
    "epsilon=8 / 255": f"epsilon=8 / 255, options={OPTIONS}, evaluation={EXAMPLES}",
}
IN_SHELL = {
    "resnet20.th": "digits.safetensors",
    "cifar10.npz": "digits.npz",
    "0.485,0.456,0.406": str(MEAN[0]),
    "0.229,0.224,0.225": str(STD[0]),
    "--detach": "--detach --port 0",
    "--epsilon 8/255": " ".join(
        [
            "--epsilon 8/255",
            *(f"--option {name}={value}" for name, value in OPTIONS.items()),
            *(f"--evaluation {name}={value}" for name, value in EXAMPLES.items()),
        ]
    ),
}


def block(language: str) -> str:
    """Return the README's code in a language; there is one."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", README.read_text(), flags=re.DOTALL)
    return str(found)


def replaced(text: str, replacements: dict[str, str]) -> str:
    for old, new in replacements.items():
        assert old in text, f"the README no longer says {old}"
        text = text.replace(old, new)
    return text


def run(command: list[str], folder: Path) -> str:
    """Run a command as a user does whose environment has the service installed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CSTAR_")}
    environment = {**kept, "PATH": path, "CSTAR_RUNNER_THREADS": "1"}
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, (command, ended.stdout, ended.stderr)
    return ended.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A new user's folder; the stack that the README starts in it is stopped at the end."""
    folder = tmp_path_factory.mktemp("user")
    shutil.copy(CHECKPOINT, folder / "digits.safetensors")
    load_digits().save(folder / "digits.npz")
    yield folder
    run(["cstar", "down"], folder)


@pytest.fixture(scope="module")
def after_commands(folder: Path) -> Path:
    """The folder after the README's commands, each of which must succeed."""
    commands = replaced(block("sh"), IN_SHELL).strip()
    assert len(commands.splitlines()) == 4
    run(["sh", "-eux", "-c", commands], folder)
    return folder


def test_four_commands_lead_from_nothing_to_a_compressed_model(after_commands: Path) -> None:
    found = {path.name for path in (after_commands / "compressed").iterdir()}

    assert {"model.safetensors", "model.onnx", "loader.py", "report.html"} <= found


def test_ten_lines_of_python_lead_to_a_compressed_model(after_commands: Path) -> None:
    shutil.rmtree(after_commands / "compressed")
    code = block("python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    told = run([sys.executable, "-c", replaced(code, IN_PYTHON)], after_commands)

    report = json.loads((after_commands / "compressed" / "report.json").read_text())
    assert told.strip() == report["result"]["verdict"]["headline"]
