"""The ONNX file, and the scoring of exported files in a fresh process."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from cstar_core.errors import InvalidDataset
from cstar_core.export import export_onnx, load, onnx_parity
from cstar_core.export.verify import main, verify
from cstar_core.normalization import NormalizedModel

from .networks import INPUT, MEAN, STD, every_operation, images

PARAMETERS = sum(parameter.numel() for parameter in every_operation().parameters())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Ten test images as uint8 with labels."""
    random = np.random.default_rng(0)
    path = tmp_path / "data.npz"
    height, width = INPUT[1:]
    np.savez(
        path,
        test_images=random.integers(0, 256, size=(10, height, width, 3), dtype=np.uint8),
        test_labels=np.arange(10, dtype=np.uint8),
    )
    return path


def expected_predictions(data: Path) -> list[int]:
    pixels = torch.from_numpy(np.load(data)["test_images"]).permute(0, 3, 1, 2) / 255
    model = NormalizedModel(every_operation(), MEAN, STD).eval()
    with torch.inference_mode():
        return [int(label) for label in model(pixels).argmax(1)]


# ONNX ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 7, 130])
def test_onnx_runtime_agrees_with_pytorch_for_any_batch(onnx_file: Path, count: int) -> None:
    parity = onnx_parity(onnx_file, load(onnx_file.parent), images(count))
    assert parity.max_abs_difference < 1e-4
    assert parity.agreement == 1


def test_parity_shows_a_network_that_differs(onnx_file: Path) -> None:
    other = load(onnx_file.parent)
    with torch.no_grad():
        other.get_parameter("head.2.bias").add_(torch.arange(10.0) * 100)
    parity = onnx_parity(onnx_file, other, images(16))
    assert parity.max_abs_difference > 100
    assert parity.agreement < 1


def test_onnx_is_one_valid_file_with_named_ends(onnx_file: Path) -> None:
    model = onnx.load(onnx_file)
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == ["images"]
    assert [value.name for value in model.graph.output] == ["logits"]
    assert not [path for path in onnx_file.parent.iterdir() if ".data" in path.name]


def test_onnx_tells_nothing_of_the_machine_it_was_made_on(onnx_file: Path) -> None:
    content = onnx_file.read_bytes()
    assert b".py" not in content
    assert str(Path.cwd()).encode() not in content


def test_exporting_is_quiet_and_leaves_the_module_as_it_was(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    network = every_operation().train()
    network.pool.eval()
    model = NormalizedModel(network, MEAN, STD)
    export_onnx(model, INPUT, tmp_path / "model.onnx")
    assert model.training
    assert network.norm.training
    assert not network.pool.training
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


# Verification ----------------------------------------------------------------------------------


def test_a_fresh_process_predicts_what_the_network_in_memory_does(
    exported: Path, data: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.json"
    command = [sys.executable, "-m", "cstar_core.export.verify", str(exported)]
    options = ["--data", str(data), "--count", "8", "--output", str(output)]
    subprocess.run([*command, *options], check=True)
    found = json.loads(output.read_text())
    expected = expected_predictions(data)[:8]
    assert found["predictions"] == expected
    assert found["n"] == 8
    assert found["correct"] == sum(label == index for index, label in enumerate(expected))
    assert found["onnx"] is None


def test_parameters_are_counted_from_the_weights_file(exported: Path, data: Path) -> None:
    found = verify(exported, data=data, count=2)
    assert found["parameters"] == PARAMETERS
    assert found["tensor_elements"] == PARAMETERS + 8 + 8 + 1  # running mean, variance, counter


def test_verification_includes_onnx_where_it_is_there(
    exported: Path, data: Path, onnx_file: Path
) -> None:
    shutil.copy(onnx_file, exported)
    parity = verify(exported, data=data, count=4)["onnx"]
    assert parity["agreement"] == 1
    assert parity["max_abs_difference"] < 1e-4


def test_verification_uses_the_loader_in_the_directory(exported: Path, data: Path) -> None:
    (exported / "loader.py").write_text("def load(directory):\n    raise OSError('my own')\n")
    with pytest.raises(OSError, match="my own"):
        verify(exported, data=data, count=2)


def test_the_command_line_writes_what_it_found(exported: Path, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    main([str(exported), "--data", str(data), "--count", "99", "--output", str(output)])
    assert json.loads(output.read_text())["predictions"] == expected_predictions(data)


def test_data_without_test_images_is_refused(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, test_labels=np.zeros(2))
    with pytest.raises(InvalidDataset, match="test_images"):
        verify(exported, data=path, count=2)


def test_a_count_of_nothing_is_refused(exported: Path, data: Path) -> None:
    with pytest.raises(InvalidDataset, match="no test images"):
        verify(exported, data=data, count=0)
