"""Reading and writing weights: what is accepted, and in which form it comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from cstar_core import architectures
from cstar_core.architectures import Architecture
from cstar_core.architectures.matching import shapes_of
from cstar_core.architectures.registry import complete, find
from cstar_core.files.checkpoints import read_checkpoint, write_weights

STATE = {
    "conv.weight": torch.arange(24.0).reshape(2, 3, 2, 2),
    "bn.running_var": torch.ones(2),
    "bn.num_batches_tracked": torch.tensor(7),
}


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], expected[name]) for name in expected
    )


def test_torch_archive_is_read(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "weights.pt")
    assert same(read_checkpoint(tmp_path / "weights.pt"), STATE)


def test_safetensors_file_is_read(tmp_path: Path) -> None:
    safetensors.torch.save_file(STATE, tmp_path / "weights.safetensors", metadata={"format": "pt"})
    assert same(read_checkpoint(tmp_path / "weights.safetensors"), STATE)


def test_path_may_be_a_string(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "weights.pt")
    assert same(read_checkpoint(str(tmp_path / "weights.pt")), STATE)


@pytest.mark.parametrize("suffix", ["bin", "safetensors", "npz"])
@pytest.mark.parametrize("archive", [True, False], ids=["zip", "legacy"])
def test_suffix_does_not_matter(tmp_path: Path, suffix: str, archive: bool) -> None:
    path = tmp_path / f"weights.{suffix}"
    torch.save(STATE, path, _use_new_zipfile_serialization=archive)
    assert same(read_checkpoint(path), STATE)


def test_state_dictionary_of_a_module_is_read(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    assert same(read_checkpoint(tmp_path / "weights.pt"), dict(network.state_dict()))


def test_parameters_are_read_as_tensors(tmp_path: Path) -> None:
    torch.save({"w": nn.Parameter(torch.ones(3))}, tmp_path / "weights.pt")
    found = read_checkpoint(tmp_path / "weights.pt")
    assert type(found["w"]) is Tensor
    assert not found["w"].requires_grad


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3, "best_prec1": 91.7},
        lambda state: {"model": state, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}},
        lambda state: {"net": state, "acc": 95.2},
        lambda state: {"model_state_dict": state},
        lambda state: {"state_dict_ema": state, "config": {"state_dict": "no"}},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {"state_dict": state, "state_dict_ema": {"other": torch.zeros(1)}},
    ],
    ids=["state_dict", "model", "net", "model_state_dict", "ema", "two levels", "both"],
)
def test_nested_dictionaries_are_entered_and_the_rest_is_dropped(tmp_path: Path, wrap: Any) -> None:
    torch.save(wrap(STATE), tmp_path / "weights.pt")
    assert same(read_checkpoint(tmp_path / "weights.pt"), STATE)


@pytest.mark.parametrize(
    "number", [np.float64(0.9), np.float32(0.9), np.int64(3), np.bool_(True)], ids=repr
)
@pytest.mark.parametrize("archive", [True, False], ids=["zip", "legacy"])
def test_numpy_number_beside_the_weights_is_dropped(
    tmp_path: Path, number: np.generic, archive: bool
) -> None:
    path = tmp_path / "weights.pt"
    checkpoint = {"state_dict": STATE, "best_acc": number}
    torch.save(checkpoint, path, _use_new_zipfile_serialization=archive)
    assert same(read_checkpoint(path), STATE)


def test_numpy_is_not_run_for_a_numpy_number(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            state = (3, "|", None, ("f",), {"f": (np.dtype("f8"), 2**30)}, 8, 1, 0)
            return (np.dtype, ("V8", False, True), state)

    torch.save({**STATE, "acc": Hostile()}, tmp_path / "weights.pt")
    assert same(read_checkpoint(tmp_path / "weights.pt"), STATE)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "network.", "module._orig_mod.", "model.module."]
)
def test_shared_prefixes_are_dropped(tmp_path: Path, prefix: str) -> None:
    torch.save({prefix + name: tensor for name, tensor in STATE.items()}, tmp_path / "weights.pt")
    assert same(read_checkpoint(tmp_path / "weights.pt"), STATE)


def test_prefix_that_not_every_name_has_is_kept(tmp_path: Path) -> None:
    state = {"module.a": torch.ones(1), "b": torch.ones(1)}
    torch.save(state, tmp_path / "weights.pt")
    assert same(read_checkpoint(tmp_path / "weights.pt"), state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("format_", ["pt", "safetensors"])
def test_other_floats_become_float32(tmp_path: Path, dtype: torch.dtype, format_: str) -> None:
    state, path = {"w": torch.tensor([1.5, -2.0], dtype=dtype)}, tmp_path / "weights"
    if format_ == "pt":
        torch.save(state, path)
    else:
        safetensors.torch.save_file(state, path)
    found = read_checkpoint(path)["w"]
    assert found.dtype == torch.float32
    assert found.tolist() == [1.5, -2.0]


def test_views_come_back_contiguous_and_apart(tmp_path: Path) -> None:
    base = torch.arange(6.0).reshape(2, 3)
    torch.save({"a": base.T, "b": base}, tmp_path / "weights.pt")
    found = read_checkpoint(tmp_path / "weights.pt")
    assert found["a"].is_contiguous()
    assert torch.equal(found["a"], base.T)
    found["a"].zero_()
    assert torch.equal(found["b"], base)


@pytest.mark.parametrize("name", architectures.names())
def test_saved_network_is_read_recognised_and_loaded(tmp_path: Path, name: str) -> None:
    small = {"width": 4, "hidden": 16, "num_classes": 7}
    known = find(name).arguments
    architecture = Architecture(
        name, complete(find(name), {key: value for key, value in small.items() if key in known})
    )
    state = architectures.build(architecture).state_dict()
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "weights.pt")
    found = read_checkpoint(tmp_path / "weights.pt")
    assert architectures.recognise(shapes_of(found)) == architecture
    assert same(dict(architectures.load(architecture, found).state_dict()), dict(state))


def test_written_weights_are_read_back_with_their_metadata(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    write_weights(STATE, path, metadata={"architecture": "resnet20_cifar"})
    assert same(read_checkpoint(path), STATE)
    assert same(safetensors.torch.load_file(path), STATE)
    with safetensors.safe_open(path, framework="pt") as opened:
        assert opened.metadata() == {"architecture": "resnet20_cifar"}


def test_weights_without_metadata_are_written(tmp_path: Path) -> None:
    write_weights(STATE, tmp_path / "weights.safetensors")
    assert same(safetensors.torch.load_file(tmp_path / "weights.safetensors"), STATE)


def test_equal_weights_are_written_as_equal_bytes(tmp_path: Path) -> None:
    letters = {letter: letter for letter in "abcdefghij"}
    contents = set()
    for attempt in range(4):
        path = tmp_path / str(attempt)
        write_weights(dict(reversed(STATE.items())), path, metadata=letters)
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_tied_and_strided_weights_are_written(tmp_path: Path) -> None:
    base = torch.arange(6.0).reshape(2, 3)
    write_weights({"a": base, "b": base, "c": base.T}, tmp_path / "weights.safetensors")
    found = read_checkpoint(tmp_path / "weights.safetensors")
    assert same(found, {"a": base, "b": base, "c": base.T})
