"""Writing a network as files: `model.safetensors`, `architecture.json` and the loader for them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn

from cstar_core.errors import InvalidModel
from cstar_core.export import loader
from cstar_core.export.graph import describe_graph

WEIGHTS = "model.safetensors"
ARCHITECTURE = "architecture.json"
LOADER = "loader.py"


def write_model(
    directory: Path,
    network: nn.Module,
    *,
    input_shape: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    num_classes: int,
) -> list[Path]:
    """Write `network`, which takes normalised images, into `directory`; the paths of the files.

    The shipped loader gives it back with the normalisation inside. Tensors are written on the CPU
    under the names of the network's state dictionary. The weights come last and in one move: where
    they are, the rest is complete.

    Raises `InvalidModel` for a network the format cannot describe or that holds tensors its forward
    pass never uses.
    """
    spec = describe_graph(
        network, input_shape=input_shape, mean=mean, std=std, num_classes=num_classes
    )
    tensors = {name: _plain(tensor) for name, tensor in network.state_dict().items()}
    _check_used(tensors, {node["target"] for node in spec["nodes"]})
    directory.mkdir(parents=True, exist_ok=True)
    (directory / ARCHITECTURE).write_text(json.dumps(spec, indent=1) + "\n")
    shutil.copyfile(loader.__file__, directory / LOADER)
    partial = directory / f"{WEIGHTS}.partial"
    save_file(tensors, partial)
    partial.replace(directory / WEIGHTS)
    return [directory / WEIGHTS, directory / ARCHITECTURE, directory / LOADER]


def _plain(tensor: Tensor) -> Tensor:
    # A copy of its own: safetensors refuses tensors that share memory.
    return tensor.detach().cpu().contiguous().clone()


def _check_used(tensors: dict[str, Tensor], paths: set[str]) -> None:
    unused = sorted(name for name in tensors if name.rpartition(".")[0] not in paths)
    if unused:
        raise InvalidModel(
            f"the forward pass never uses {', '.join(unused[:5])}; remove them from the network",
            code="unsupported_layer",
        )
