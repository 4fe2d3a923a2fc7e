"""`cstar up --detach`: what it says is so, whoever else starts or stops a stack meanwhile."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from stack import background, credentials, lock
from store.settings import Settings

URL = "http://127.0.0.1:8000"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path)


@pytest.mark.parametrize("left", [None, "", json.dumps({"url": "http://old", "pid": 1})],
                         ids=["none", "empty", "of an earlier stack"])  # fmt: skip
def test_a_stack_that_is_being_started_is_waited_for(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    left: str | None,
) -> None:
    if left is not None:
        (settings.data_dir / credentials.STACK_FILE).write_text(left)

    def become_ready(_: float) -> None:
        credentials.write_stack_file(settings.data_dir, url=URL, api_key="cst_key")

    monkeypatch.setattr(background.time, "sleep", become_ready)
    with lock.held(settings.data_dir):
        assert background.start(settings, port=0) == 0

    assert capsys.readouterr().out.startswith(f"ready: {URL} ")


def test_a_stack_that_does_not_come_up_is_told_with_its_last_words(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert background.start(settings, port=taken.getsockname()[1]) == 1

    told = capsys.readouterr().err
    assert "in use" in told
    assert "--port" in told
    assert lock.holder(settings.data_dir) is None


def test_a_process_that_dies_while_it_writes_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials.write_stack_file(tmp_path, url=URL, api_key="cst_first")

    def die(_: int) -> None:
        raise SystemExit

    monkeypatch.setattr(os, "fsync", die)
    with pytest.raises(SystemExit):
        credentials.write_stack_file(tmp_path, url=URL, api_key="cst_second")

    assert credentials.stack_file(tmp_path)["api_key"] == "cst_first"


def test_a_file_that_others_could_read_becomes_the_owners(tmp_path: Path) -> None:
    (tmp_path / credentials.STACK_FILE).touch(mode=0o644)
    path = credentials.write_stack_file(tmp_path, url=URL, api_key="cst_key")

    assert path.stat().st_mode & 0o077 == 0
