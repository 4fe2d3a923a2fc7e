"""The list of architectures for processes without torch."""

from __future__ import annotations

import json
import runpy

import pytest

from cstar_core import architectures
from cstar_core.architectures.catalog import catalog


def test_catalog_describes_every_architecture() -> None:
    assert [described["name"] for described in catalog()] == architectures.names()
    assert all(
        set(described) == {"name", "summary", "arguments", "input_shape", "parameters"}
        for described in catalog()
    )


def test_catalog_gives_default_arguments_and_usual_input() -> None:
    described = next(entry for entry in catalog() if entry["name"] == "resnet20_cifar")
    assert described["arguments"] == {"width": 16, "in_channels": 3, "num_classes": 10}
    assert described["input_shape"] == [3, 32, 32]
    assert described["parameters"] == 269_722


@pytest.mark.filterwarnings("ignore:.*found in sys.modules.*:RuntimeWarning")
def test_module_prints_the_catalog_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_module("cstar_core.architectures.catalog", run_name="__main__")
    assert json.loads(capsys.readouterr().out) == catalog()
