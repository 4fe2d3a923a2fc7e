"""What docs/pipelines.md tells people to paste is what the command and the client understand."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml  # type: ignore[import-untyped]

from cstar_client.cli.app import app
from cstar_client.cli.exits import Exit

GUIDE = (Path(__file__).parents[2] / "docs" / "pipelines.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


WORKFLOW = yaml.safe_load(blocks("yaml")[0])
STEPS = WORKFLOW["jobs"]["compress"]["steps"]
SCRIPTS = [step["run"] for step in STEPS if "run" in step]


def commands() -> list[list[str]]:
    """Every call of `cstar` in the workflow, as words."""
    lines = "\n".join(SCRIPTS).replace("\\\n", " ").splitlines()
    calls = [found.group(0) for line in lines if (found := re.search(r"\bcstar [a-z][^|)]*", line))]
    return [shlex.split(call)[1:] for call in calls]


def test_the_workflow_has_what_github_asks_for() -> None:
    assert set(WORKFLOW) - {True} == {"name", "permissions", "concurrency", "jobs"}  # True is `on`
    assert WORKFLOW[True]["pull_request"]["paths"] == ["weights/**"]
    assert all(("uses" in step) != ("run" in step) for step in STEPS)
    ids = {step["id"] for step in STEPS if "id" in step}
    assert set(re.findall(r"steps\.([a-z]+)\.", blocks("yaml")[0])) == ids


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_step_is_bash(script: str) -> None:
    subprocess.run(["bash", "-n", "-c", script], check=True)


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_the_command_understands_what_the_workflow_asks_of_it(words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context("cstar", words)  # raises UsageError


def test_the_workflow_calls_every_command_it_needs() -> None:
    assert [" ".join(words[:2]) for words in commands() if words[0] == "jobs"] == [
        "jobs submit",
        "jobs watch",
        "jobs cancel",
    ]


def test_the_exit_codes_are_those_of_the_command() -> None:
    told = {int(code) for code in re.findall(r"^  \| (\d+) \|", GUIDE, re.MULTILINE)}
    assert told == {code.value for code in Exit} - {Exit.INTERRUPTED}


@pytest.mark.parametrize("snippet", blocks("python"))
def test_the_snippets_are_python(snippet: str) -> None:
    compile(snippet, "docs/pipelines.md", "exec")
