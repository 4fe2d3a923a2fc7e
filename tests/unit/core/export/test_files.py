"""What is written can be loaded again, by the shipped loader alone, and is what it was."""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from cstar_core.errors import InvalidModel
from cstar_core.export import describe_graph, load, loader, manifest, write_model
from cstar_core.normalization import NormalizedModel

from .networks import INPUT, MEAN, STD, EveryOperation, every_operation, images


def describe(network: nn.Module) -> dict[str, Any]:
    return describe_graph(network, input_shape=INPUT, mean=MEAN, std=STD, num_classes=10)


def edit(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = directory / "architecture.json"
    spec = json.loads(path.read_text())
    change(spec)
    path.write_text(json.dumps(spec))


# Loading ---------------------------------------------------------------------------------------


def test_the_loaded_network_gives_the_same_logits_on_images(exported: Path) -> None:
    original = NormalizedModel(every_operation(), MEAN, STD).eval()
    with torch.inference_mode():
        assert torch.equal(load(exported)(images()), original(images()))


def test_it_is_loaded_in_eval_mode(exported: Path) -> None:
    assert not any(module.training for module in load(exported).modules())


def test_the_state_dict_is_that_of_the_file_and_of_the_network(exported: Path) -> None:
    loaded, original = load(exported).state_dict(), every_operation().state_dict()
    written = load_file(exported / "model.safetensors")
    assert loaded.keys() == original.keys() == written.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in original.items())
    assert loaded["norm.num_batches_tracked"].item() == 7


def test_the_loaded_network_can_be_fine_tuned(exported: Path) -> None:
    network = load(exported).train()
    network(images()).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_the_loaded_network_can_be_exported_again(exported: Path, tmp_path: Path) -> None:
    class Unnormalised(EveryOperation):
        pass

    again = Unnormalised()
    again.load_state_dict(load(exported).state_dict())
    assert describe(again.eval()) == json.loads((exported / "architecture.json").read_text())


def test_the_shipped_loader_is_a_verbatim_copy(exported: Path) -> None:
    assert (exported / "loader.py").read_bytes() == Path(loader.__file__).read_bytes()


def test_the_loader_imports_torch_and_the_standard_library_only() -> None:
    tree = ast.parse(Path(loader.__file__).read_text())
    modules = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None) or node.names[0].name]
    }
    assert modules - sys.stdlib_module_names == {"torch"}


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64]
)
def test_the_loader_reads_what_safetensors_writes(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = {
        "odd": torch.arange(3, dtype=torch.int64),
        "matrix": torch.arange(6).reshape(2, 3).to(dtype),
        "scalar": torch.tensor(3).to(dtype),
    }
    path = tmp_path / "tensors.safetensors"
    save_file(tensors, path, metadata={"written by": "a test"})
    read = loader.read_safetensors(path)
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    assert read["matrix"].dtype == dtype


@pytest.mark.parametrize(("key", "value"), [("version", 2), ("format", "other")])
def test_another_format_or_version_is_refused(exported: Path, key: str, value: object) -> None:
    edit(exported, lambda spec: spec.update({key: value}))
    with pytest.raises(ValueError, match=r"use the loader\.py that came with it"):
        load(exported)


def test_an_unknown_operation_is_refused_by_name(exported: Path) -> None:
    edit(exported, lambda spec: spec["nodes"][1].update(op="Bilinear"))
    with pytest.raises(ValueError, match="Bilinear"):
        load(exported)


def test_a_tensor_of_the_wrong_shape_is_named(exported: Path) -> None:
    tensors = load_file(exported / "model.safetensors")
    save_file(tensors | {"stem.weight": torch.zeros(8, 3, 5, 5)}, exported / "model.safetensors")
    with pytest.raises(RuntimeError, match=r"size mismatch for stem\.weight"):
        load(exported)


def test_missing_and_unexpected_tensors_are_named(exported: Path) -> None:
    tensors = load_file(exported / "model.safetensors")
    tensors["stray"] = tensors.pop("norm.bias")
    save_file(tensors, exported / "model.safetensors")
    with pytest.raises(RuntimeError, match=r"(?s)norm\.bias.*stray"):
        load(exported)


# Describing ------------------------------------------------------------------------------------


def test_the_architecture_is_versioned_and_complete(exported: Path) -> None:
    spec = json.loads((exported / "architecture.json").read_text())
    assert (spec["format"], spec["version"]) == ("cstar-architecture", 1)
    assert spec["input"] == {"shape": list(INPUT), "mean": list(MEAN), "std": list(STD)}
    assert spec["num_classes"] == 10
    assert spec["nodes"][0]["op"] == "input"


def test_factorised_layers_are_described_as_their_factors() -> None:
    nodes = describe(every_operation())["nodes"]
    paths = [node["target"] for node in nodes if node["op"] == "Conv2d"]
    assert paths == ["stem", "down.0", "down.1", "down.2", "grouped"]


def test_nodes_use_only_earlier_nodes() -> None:
    spec = describe(every_operation())
    seen: set[str] = set()
    for node in spec["nodes"]:
        assert set(node["inputs"]) <= seen
        seen.add(node["name"])
    assert spec["output"] in seen


class Calls(nn.Module):
    """Passes images through one given function."""

    def __init__(self, function: Callable[..., object], module: nn.Module | None = None) -> None:
        super().__init__()
        self.function = function
        self.module = module or nn.Identity()

    def forward(self, x: Tensor) -> object:
        return self.function(self.module(x))


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (torch.sigmoid, "sigmoid"),
        (lambda x: x.mean(3), "mean"),
        (lambda x: x + 1, "constant"),
        (lambda x: x[0], "slices"),
        (lambda x: F.pad(x, (1, 1), mode="reflect"), "reflect"),
        (lambda x: x if x.sum() > 0 else -x, "traced"),
        (lambda x: (x, x), "constant"),
    ],
    ids=["function", "method", "constant", "index", "padding", "branch", "two outputs"],
)
def test_what_the_format_does_not_know_is_refused_by_name(
    function: Callable[..., object], named: str
) -> None:
    with pytest.raises(InvalidModel, match=named) as refusal:
        describe(Calls(function))
    assert refusal.value.code == "unsupported_layer"


def test_a_module_the_format_does_not_know_is_refused_by_name() -> None:
    with pytest.raises(InvalidModel, match=r"GELU \(module\)"):
        describe(Calls(lambda x: x, nn.GELU()))


def test_tensors_that_the_forward_pass_never_uses_are_refused(tmp_path: Path) -> None:
    network = every_operation()
    network.add_module("auxiliary", nn.Linear(2, 2))
    with pytest.raises(InvalidModel, match=r"auxiliary\.weight"):
        write_model(tmp_path, network, input_shape=INPUT, mean=MEAN, std=STD, num_classes=10)


def test_the_weights_appear_only_once_the_rest_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("cstar_core.export.writer.shutil.copyfile", fail)
    with pytest.raises(OSError, match="disk full"):
        write_model(
            tmp_path, every_operation(), input_shape=INPUT, mean=MEAN, std=STD, num_classes=10
        )
    assert not (tmp_path / "model.safetensors").exists()


def test_writing_twice_gives_the_same_bytes(exported: Path, tmp_path: Path) -> None:
    again = write_model(
        tmp_path / "again",
        every_operation(),
        input_shape=INPUT,
        mean=MEAN,
        std=STD,
        num_classes=10,
    )
    assert all(path.read_bytes() == (exported / path.name).read_bytes() for path in again)


# Manifest --------------------------------------------------------------------------------------


def test_the_manifest_has_the_hash_and_size_of_every_file(exported: Path) -> None:
    content = manifest(exported, {"seed": 3})
    assert json.loads((exported / "manifest.json").read_text()) == content
    assert content["seed"] == 3
    assert content["files"].keys() == {"architecture.json", "loader.py", "model.safetensors"}
    for name, entry in content["files"].items():
        data = (exported / name).read_bytes()
        assert entry == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_a_manifest_written_again_does_not_list_itself(exported: Path) -> None:
    assert manifest(exported, {}) == manifest(exported, {})


@pytest.mark.parametrize("facts", [{"files": {}}, {"loss": float("nan")}], ids=["clash", "nan"])
def test_facts_that_would_spoil_the_manifest_are_refused(
    exported: Path, facts: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"facts|JSON"):
        manifest(exported, facts)
