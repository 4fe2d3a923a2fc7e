"""One exported network for all tests of this folder that only read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cstar_core.export import export_onnx, load, write_model

from .networks import INPUT, MEAN, STD, every_operation


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """Weights, architecture and loader in an empty folder."""
    directory = tmp_path / "exported"
    write_model(directory, every_operation(), input_shape=INPUT, mean=MEAN, std=STD, num_classes=10)
    return directory


@pytest.fixture(scope="session")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network in ONNX, with its normalisation; read only."""
    directory = tmp_path_factory.mktemp("onnx")
    write_model(directory, every_operation(), input_shape=INPUT, mean=MEAN, std=STD, num_classes=10)
    export_onnx(load(directory), INPUT, directory / "model.onnx")
    return directory / "model.onnx"
