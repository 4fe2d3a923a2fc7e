"""Networks that are opened: folders of ours, files of weights, and what is neither."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cstar_core.architectures import recognise
from cstar_core.architectures.matching import shapes_of
from cstar_core.errors import InvalidModel
from cstar_core.evaluate.networks import Reading, of_weights, open_network
from cstar_core.export import write_model
from cstar_core.layers import count_parameters
from stack.demo.digits import CLASSES, MEAN, SHAPE, STD
from tests.unit.core.evaluate.conftest import CHECKPOINT

READING = Reading(mean=MEAN, std=STD)
IMAGES = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0))


def opened(path: Path, **fields: Any) -> Any:
    return open_network(path, **({"name": "net", "shape": SHAPE, "reading": READING} | fields))


def refusal(path: Path, **fields: Any) -> InvalidModel:
    with pytest.raises(InvalidModel) as refused:
        opened(path, **fields)
    return refused.value


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """The demo's network as the service exports it."""
    weights = load_file(CHECKPOINT)
    network = of_weights(recognise(shapes_of(weights)), weights, mean=MEAN, std=STD).network
    write_model(
        tmp_path / "net",
        network,  # type: ignore[arg-type]
        input_shape=SHAPE,
        mean=MEAN,
        std=STD,
        num_classes=CLASSES,
    )
    return tmp_path / "net"


def change_architecture(folder: Path, change: Any) -> None:
    spec = json.loads((folder / "architecture.json").read_text())
    change(spec)
    (folder / "architecture.json").write_text(json.dumps(spec))


def test_an_exported_folder_and_the_weights_it_came_from_are_one_network(exported: Path) -> None:
    file, folder = opened(CHECKPOINT), opened(exported, reading=Reading())
    with torch.no_grad():
        torch.testing.assert_close(file.model(IMAGES), folder.model(IMAGES))
    assert file.classes == folder.classes == CLASSES
    assert file.footprint == folder.footprint
    assert file.footprint.parameters == count_parameters(file.model)
    assert file.footprint.bytes == sum(t.nbytes for t in load_file(CHECKPOINT).values())


def test_a_state_dict_of_torch_save_is_read_too(tmp_path: Path) -> None:
    torch.save({"state_dict": load_file(CHECKPOINT)}, tmp_path / "net.pth")
    with torch.no_grad():
        torch.testing.assert_close(
            opened(tmp_path / "net.pth").model(IMAGES), opened(CHECKPOINT).model(IMAGES)
        )


def test_the_loader_that_lies_in_a_folder_is_not_run(exported: Path, tmp_path: Path) -> None:
    trace = tmp_path / "was_run"
    (exported / "loader.py").write_text(f"open({str(trace)!r}, 'w')\n")
    opened(exported)
    assert not trace.exists()


def test_weights_without_normalisation_are_refused_with_what_to_pass() -> None:
    error = refusal(CHECKPOINT, reading=Reading())
    assert error.code == "invalid_normalization"
    for words in ("resnet8_cifar", "--mean 0.4914 0.4822 0.4465", "--std 0.229 0.224 0.225"):
        assert words in str(error)


@pytest.mark.parametrize(("mean", "std"), [((0.5,) * 3, (1.0,) * 3), ((0.5,), (1.0,) * 2)])
def test_normalisation_has_one_value_for_each_channel(
    mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    error = refusal(CHECKPOINT, reading=Reading(mean=mean, std=std))
    assert (error.code, "each of the 1 channels" in str(error)) == ("invalid_normalization", True)


def test_another_architecture_than_the_weights_have_is_refused() -> None:
    reading = Reading("resnet20_cifar", MEAN, STD)
    assert refusal(CHECKPOINT, reading=reading).code == "weights_do_not_fit"


def test_images_of_another_shape_are_refused(exported: Path) -> None:
    for path in (CHECKPOINT, exported):
        three = Reading(mean=(0.5,) * 3, std=(1.0,) * 3)
        assert refusal(path, shape=(3, 8, 8), reading=three).code == "shape_mismatch"


def test_weights_that_are_not_finite_are_refused_in_a_folder_too(exported: Path) -> None:
    weights = load_file(exported / "model.safetensors")
    next(t for t in weights.values() if t.is_floating_point()).view(-1)[0] = float("nan")
    save_file(weights, exported / "model.safetensors")
    assert refusal(exported).code == "not_finite"


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "architecture.json").write_text("{"),
        lambda folder: (folder / "architecture.json").write_text("[]"),
        lambda folder: (folder / "model.safetensors").write_bytes(b"short"),
        lambda folder: change_architecture(folder, lambda spec: spec.pop("nodes")),
        lambda folder: change_architecture(folder, lambda spec: spec.update(version=9)),
        lambda folder: change_architecture(folder, lambda spec: spec["nodes"][1].update(op="eval")),
        lambda folder: change_architecture(folder, lambda spec: spec["nodes"].pop(3)),
    ],
    ids=["no JSON", "no object", "no weights", "no nodes", "another version", "unknown", "a gap"],
)
def test_a_damaged_folder_is_refused_without_a_traceback(exported: Path, damage: Any) -> None:
    damage(exported)
    assert "\n" not in str(refusal(exported))


def test_a_folder_that_was_not_exported_says_what_it_lacks(tmp_path: Path) -> None:
    assert "model.safetensors and architecture.json" in str(refusal(tmp_path))


def test_nothing_at_all_is_refused(tmp_path: Path) -> None:
    assert "there is no" in str(refusal(tmp_path / "nothing"))


def test_a_network_is_told_from_another_by_bytes_and_by_how_they_are_read(
    exported: Path,
) -> None:
    identities = {
        opened(CHECKPOINT).identity,
        opened(CHECKPOINT, reading=Reading(mean=(0.0,), std=STD)).identity,
        opened(exported).identity,
    }
    assert len(identities) == 3
    assert opened(CHECKPOINT, name="another name").identity in identities
