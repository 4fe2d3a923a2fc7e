"""Every setting is explained, and what the guide says can be set reaches the process it is for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from store.settings import Settings
from tests.contract.test_compose import SERVICES

DOCS = Path(__file__).parents[2] / "docs"
WORKERS = ("worker-jobs", "worker-io", "worker-cuda")
PROCESSES = {"API": ("api",), "scheduler": ("scheduler",), "workers": WORKERS}
OF_THE_IMAGE = "CSTAR_DATA_DIR"


def rows_of(page: str) -> list[tuple[list[str], list[str]]]:
    """Return the variables of each row of a page's tables, and the processes it names for them."""
    lines = (DOCS / page).read_text("utf-8").splitlines()
    cells = [line.split("|")[1:3] for line in lines if line.startswith("| `CSTAR_")]
    return [(re.findall(r"CSTAR_[A-Z_]+", names), who.strip().split(", ")) for names, who in cells]


DECIDED = [(name, who) for names, who in rows_of("deployment.md") for name in names]
OTHERS = [name for names, _ in rows_of("architecture.md") for name in names]


def test_every_setting_is_in_one_of_the_two_tables_and_once() -> None:
    explained = [name for name, _ in DECIDED] + OTHERS
    assert sorted(explained) == sorted(f"CSTAR_{name.upper()}" for name in Settings.model_fields)


@pytest.mark.parametrize(("name", "who"), DECIDED, ids=[name for name, _ in DECIDED])
def test_compose_gives_a_setting_to_those_whom_the_guide_names(name: str, who: list[str]) -> None:
    named = PROCESSES if who == ["all"] else {one: PROCESSES[one] for one in who}
    for service in (service for services in named.values() for service in services):
        assert name == OF_THE_IMAGE or name in SERVICES[service]["environment"], service
