"""The client can be installed alone: it is the same one, and asks for no more than it says."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "cstar_client"
ALONE: dict[str, Any] = tomllib.loads((CLIENT / "pyproject.toml").read_text())["project"]
SERVICE: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMPORTED_AS = {"mlflow-skinny": "mlflow"}


def imported() -> Iterator[str]:
    """Yield the top packages that modules of the client import."""
    for path in CLIENT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module.partition(".")[0]


def names(requirements: list[str]) -> set[str]:
    found = {Requirement(one).name for one in requirements}
    return {IMPORTED_AS.get(name, name) for name in found}


def test_it_is_the_version_and_the_command_of_the_service() -> None:
    assert ALONE["version"] == SERVICE["version"]
    assert ALONE["scripts"] == SERVICE["scripts"]
    assert ALONE["requires-python"] == SERVICE["requires-python"]


def test_the_service_asks_for_all_that_its_client_needs() -> None:
    assert set(ALONE["dependencies"]) <= set(SERVICE["dependencies"])


def test_it_imports_what_it_asks_for_and_nothing_else() -> None:
    optional = [one for extra in ALONE.get("optional-dependencies", {}).values() for one in extra]
    asked = names(ALONE["dependencies"]) | names(optional)

    assert set(imported()) - sys.stdlib_module_names - {"cstar_client"} == asked
