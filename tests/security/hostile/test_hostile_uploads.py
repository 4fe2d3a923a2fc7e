"""Every hostile file is refused with a reason, in bounded memory and time, and leaves nothing.

Each is sent to the API; what that lets through is what a runner gets to see. The runner of this
module is the code and the limits of a real one, in a fork for each file: see `judging`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.security.hostile.files import HOSTILE, MEBIBYTE, Hostile

REPOSITORY = Path(__file__).parents[3]
MOST_SECONDS = 10.0  # of processor time
MOST_GROWTH_BYTES = 192 * MEBIBYTE
INPUT = {"shape": [3, 8, 8], "mean": [0.5] * 3, "std": [0.2] * 3}


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each file, in the order of the table, with the file and its verdict."""
    folder = tmp_path_factory.mktemp("hostile")
    command = [sys.executable, "-m", "tests.security.hostile.judging", str(folder)]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return folder


def folder_of(judged: Path, name: str) -> Path:
    return judged / str(list(HOSTILE).index(name))


def sent(client: Any, hostile: Hostile, content: bytes) -> Any:
    params = {"filename": hostile.filename, "purpose": hostile.purpose}
    return client.put("/v1/files", params=params, content=content)


@pytest.mark.parametrize("name", [name for name in HOSTILE if HOSTILE[name].at_upload])
def test_what_its_first_bytes_give_away_is_refused_at_once(
    client: Any, leftovers: Any, judged: Path, name: str
) -> None:
    content = (folder_of(judged, name) / "sent").read_bytes()
    answer = sent(client, HOSTILE[name], content)
    assert (answer.status_code, answer.json()["code"]) == (422, HOSTILE[name].code)
    assert answer.json()["detail"]
    assert leftovers() == []


@pytest.mark.parametrize("name", [name for name in HOSTILE if not HOSTILE[name].at_upload])
def test_what_the_api_lets_through_is_left_to_the_runner(
    client: Any, judged: Path, name: str
) -> None:
    hostile = HOSTILE[name]
    answer = sent(client, hostile, (folder_of(judged, name) / "sent").read_bytes())
    assert answer.status_code == 201
    body = {"name": "hostile", "file_id": answer.json()["id"]}
    if hostile.purpose == "checkpoint":
        made = client.post("/v1/models", json=body | {"input": INPUT, "num_classes": 3})
    else:
        made = client.post("/v1/datasets", json=body)
    assert (made.status_code, made.json()["status"]) == (202, "validating")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_runner_rejects_it_with_a_reason_in_bounds_and_leaves_nothing(
    judged: Path, name: str
) -> None:
    """Also what the API would never have let through."""
    verdict = json.loads((folder_of(judged, name) / "verdict.json").read_text())
    log = (folder_of(judged, name) / "log").read_text()
    assert verdict["status"] == 0, log
    assert verdict["code"] is not None
    if not HOSTILE[name].at_upload:
        assert verdict["code"] == HOSTILE[name].code
    assert verdict["left"] == []  # no canary, no output, no temporary file
    assert verdict["seconds"] < MOST_SECONDS
    assert verdict["growth_bytes"] < MOST_GROWTH_BYTES


def test_a_pickle_of_the_table_makes_its_canary_where_it_is_run(tmp_path: Path) -> None:
    """Else the table would show nothing."""
    content = HOSTILE["pickle that runs code, plain"].build(tmp_path / "canary")
    subprocess.run(
        [sys.executable, "-c", "import pickle, sys; pickle.load(sys.stdin.buffer)"],
        input=content,
        check=True,
    )
    assert (tmp_path / "canary").is_dir()
