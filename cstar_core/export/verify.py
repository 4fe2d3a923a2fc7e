"""Score exported files again, in a process that knows nothing of the network they came from.

    python -m cstar_core.export.verify DIRECTORY --data CANONICAL.npz --count N --output OUT.json

Loads DIRECTORY with the loader.py that lies in it, predicts the first N test images and writes what
it found; the pipeline compares that with the predictions it had in memory.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn

from cstar_core.errors import InvalidDataset
from cstar_core.export.onnx_model import onnx_parity

BATCH = 128


def verify(directory: Path, *, data: Path, count: int) -> dict[str, Any]:
    """Predictions of the exported files on the first `count` test images, and what they weigh.

    `data` is an `.npz` with `test_images` uint8 (N, H, W, C) and `test_labels` (N,). `parameters`
    counts the learnable elements in `model.safetensors`, `tensor_elements` all of them; `onnx` is
    the parity of `model.onnx` on the same images, None where there is none.
    """
    images, labels = _test_images(data, count)
    network = _load_with_own_loader(directory)
    predictions = _predict(network, images)
    onnx_file = directory / "model.onnx"
    return {
        "predictions": predictions.tolist(),
        "correct": int((predictions == labels).sum()),
        "n": len(labels),
        **_weigh(directory / "model.safetensors", network),
        "onnx": asdict(onnx_parity(onnx_file, network, images)) if onnx_file.exists() else None,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `verify` from the command line."""
    parser = argparse.ArgumentParser(description="Score exported files in a fresh process.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--data", type=Path, required=True, help=".npz with test images")
    parser.add_argument("--count", type=int, required=True, help="test images to predict")
    parser.add_argument("--output", type=Path, required=True, help="where the JSON goes")
    options = parser.parse_args(arguments)
    found = verify(options.directory, data=options.data, count=options.count)
    options.output.write_text(json.dumps(found) + "\n")


def _test_images(data: Path, count: int) -> tuple[Tensor, Tensor]:
    """Images (n, C, H, W) in [0, 1] and labels (n,)."""
    with np.load(data, allow_pickle=False) as arrays:
        if missing := {"test_images", "test_labels"} - set(arrays.files):
            raise InvalidDataset(f"{data.name} lacks {', '.join(sorted(missing))}; add them")
        images = torch.from_numpy(arrays["test_images"][:count])
        labels = torch.from_numpy(arrays["test_labels"][:count].astype(np.int64))
    if count < 1 or len(labels) == 0:
        raise InvalidDataset(f"no test images to verify with: {data.name} and a count of {count}")
    return images.permute(0, 3, 1, 2).float().div(255), labels


def _load_with_own_loader(directory: Path) -> nn.Module:
    path = directory / "loader.py"
    spec = importlib.util.spec_from_file_location("exported_loader", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network: nn.Module = module.load(directory)
    return network


def _predict(network: nn.Module, images: Tensor) -> Tensor:
    with torch.inference_mode():
        starts = range(0, len(images), BATCH)
        return torch.cat([network(images[i : i + BATCH]).argmax(1) for i in starts])


def _weigh(weights: Path, network: nn.Module) -> dict[str, int]:
    learnable = {name for name, _ in network.named_parameters()}
    with safe_open(weights, framework="pt") as file:
        names = list(file.keys())
        sizes = {name: int(np.prod(file.get_slice(name).get_shape())) for name in names}
    return {
        "parameters": sum(size for name, size in sizes.items() if name in learnable),
        "tensor_elements": sum(sizes.values()),
    }


if __name__ == "__main__":
    main()
