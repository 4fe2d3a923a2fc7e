"""The network in this directory, ready to use: `model = load("directory")`. Needs PyTorch alone."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

POOLS = (nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.MaxPool2d)
LAYERS = (nn.BatchNorm2d, nn.Conv2d, nn.Dropout, nn.Flatten, nn.Identity, nn.Linear)
ACTIVATIONS = (nn.ReLU, nn.ReLU6)
TYPES: dict[str, Any] = {layer.__name__: layer for layer in (*POOLS, *LAYERS, *ACTIVATIONS)}
FUNCTIONS: dict[str, Any] = {
    "add": torch.add,
    "flatten": torch.flatten,
    "getitem": lambda x, slices: x[tuple(slice(*part) for part in slices)],
    "pad": nn.functional.pad,
}
DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64", "I64": "int64"}


class Network(nn.Module):
    """Logits (N, K) of images (N, C, H, W) in [0, 1]; the normalisation is inside."""

    def __init__(self, spec: dict[str, Any]) -> None:
        super().__init__()
        (self._input, *self._nodes), self._output = spec["nodes"], spec["output"]
        self._last_use = {name: n["name"] for n in self._nodes for name in n["inputs"]}
        for key in ("mean", "std"):
            values = torch.tensor(spec["input"][key]).view(-1, 1, 1)
            self.register_buffer(f"_{key}", values, persistent=False)
        for node in (n for n in self._nodes if n["target"]):
            parent: nn.Module = self
            *path, name = node["target"].split(".")
            for part in path:
                parent._modules.setdefault(part, nn.Module())
                parent = parent.get_submodule(part)
            parent._modules.setdefault(name, TYPES[node["op"]](**node["attributes"]))

    def forward(self, images: Tensor) -> Tensor:
        """Run the nodes in order, dropping each value after its last use."""
        mean, std = self.get_buffer("_mean"), self.get_buffer("_std")
        values = {self._input["name"]: (images - mean) / std}
        for node in self._nodes:
            inputs = [values[name] for name in node["inputs"]]
            for name in node["inputs"]:
                if self._last_use[name] == node["name"]:
                    values.pop(name, None)
            if node["target"]:
                values[node["name"]] = self.get_submodule(node["target"])(*inputs)
            else:
                values[node["name"]] = FUNCTIONS[node["op"]](*inputs, **node["attributes"])
        return values[self._output]


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors by name: 8 bytes of header length, a JSON header, then raw little-endian data."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = (start + offset for offset in entry["data_offsets"])
        dtype = getattr(torch, DTYPES[entry["dtype"]])
        flat = torch.frombuffer(bytearray(data[begin:end]), dtype=dtype)
        tensors[name] = flat.reshape(entry["shape"])
    return tensors


def load(directory: str | Path) -> nn.Module:
    """The network in eval mode; raises ValueError or RuntimeError saying what does not fit."""
    spec = json.loads((Path(directory) / "architecture.json").read_text())
    found = (spec.get("format"), spec.get("version"))
    if found != ("cstar-architecture", 1):
        raise ValueError(f"architecture.json is {found}: use the loader.py that came with it")
    if unknown := {n["op"] for n in spec["nodes"][1:]} - TYPES.keys() - FUNCTIONS.keys():
        raise ValueError(f"architecture.json has the unknown operations {sorted(unknown)}")
    network = Network(spec)
    network.load_state_dict(read_safetensors(Path(directory) / "model.safetensors"))
    return network.eval()
