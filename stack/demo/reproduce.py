"""Scores a downloaded artifact with torch and the loader that came with it, nothing else.

    python reproduce.py ARTIFACT_FOLDER TEST_DATA.safetensors

Replays the clean and the PGD-20 (Madry et al. 2018) figure of report.json to the example: the
rows, batches and seeds of the random starts are in the report. L-inf only. Prints JSON.
"""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

sys.dont_write_bytecode = True  # nothing is left in the artifact's folder


def import_loader(folder: Path) -> ModuleType:
    """Import the loader.py that lies in the artifact's folder."""
    spec = importlib.util.spec_from_file_location("loader", folder / "loader.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"no loader.py in {folder}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def attacked_correct(
    model: nn.Module, images: Tensor, labels: Tensor, start: Tensor, *, epsilon: float, steps: int
) -> int:
    """Count the images that stay correct under PGD, over the clean image and every iterate."""
    alive = model(images).argmax(1) == labels
    images, labels, point = images[alive], labels[alive], start[alive]
    step_size = 2.5 / steps * epsilon
    for _ in range(steps):
        if not len(labels):
            return 0
        point.requires_grad_()
        logits = model(point)
        loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, point)
        alive = logits.argmax(1) == labels
        images, labels, point = images[alive], labels[alive], point.detach()[alive]
        moved = point + step_size * gradient[alive].sign() - images
        point = (images + moved.clamp(-epsilon, epsilon)).clamp(0, 1)
    return int((model(point).argmax(1) == labels).sum()) if len(labels) else 0


def main() -> None:
    """Score the artifact and print what was found beside what its report says."""
    folder, data = Path(sys.argv[1]), Path(sys.argv[2])
    loader = import_loader(folder)
    model = loader.load(folder).requires_grad_(False)
    test = loader.read_safetensors(data)
    report = json.loads((folder / "report.json").read_text())
    evaluation, threat = report["evaluation"], report["threat_model"]
    with torch.no_grad():
        clean = int((model(test["images"]).argmax(1) == test["labels"]).sum())
    rows = torch.tensor(evaluation["attacked"]["index"])
    batches = torch.split(rows, evaluation["attacked"]["batch_size"])
    robust = 0
    for batch, seed in zip(batches, evaluation["attacked"]["start_seeds"], strict=True):
        images, labels = test["images"][batch], test["labels"][batch]
        noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(seed))
        start = (images + (2 * noise - 1) * threat["epsilon"]).clamp(0, 1)
        steps = evaluation["after"]["pgd"]["settings"]["steps"]
        robust += attacked_correct(
            model, images, labels, start, epsilon=threat["epsilon"], steps=steps
        )
    tensors = loader.read_safetensors(folder / "model.safetensors")
    found = {
        "clean": {"correct": clean, "n": len(test["labels"])},
        "pgd-20": {"correct": robust, "n": len(rows)},
        "tensor_elements": sum(tensor.numel() for tensor in tensors.values()),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
