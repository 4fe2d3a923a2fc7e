"""The probe finds out how a runner is confined by starting one."""

from __future__ import annotations

import pytest

from worker.probe import probe


@pytest.mark.usefixtures("bubblewrap")
def test_bubblewrap_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CSTAR_SECRET_KEY", "a secret")
    assert probe() == {
        "sandbox": "bubblewrap",
        "network": False,
        "writes": False,
        "environment": False,
    }


@pytest.mark.usefixtures("plain")
def test_without_it_the_network_and_the_disk_are_open_and_said_to_be() -> None:
    found = probe()
    assert found["sandbox"] == "rlimits"
    assert (found["network"], found["writes"], found["environment"]) == (True, True, False)
