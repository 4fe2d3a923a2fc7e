"""Networks to be judged: a file of weights, or a folder that this service exported."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from cstar_core.architectures import Architecture, fit, load, recognise
from cstar_core.errors import InvalidModel
from cstar_core.evaluation.report import Footprint
from cstar_core.export import load as load_exported
from cstar_core.export.writer import ARCHITECTURE, WEIGHTS
from cstar_core.files.checkpoints import read_checkpoint
from cstar_core.files.listing import shown
from cstar_core.layers import count_macs, count_parameters
from cstar_core.normalization import NormalizedModel

Shape = tuple[int, int, int]

NORMALISATION_HELP = (
    "Pass --mean and --std, one number for each channel, as in training: for CIFAR-10 often "
    "--mean 0.4914 0.4822 0.4465 --std 0.2471 0.2435 0.2616, with ImageNet's statistics "
    "--mean 0.485 0.456 0.406 --std 0.229 0.224 0.225, and --mean 0 0 0 --std 1 1 1 if images were "
    "not normalised."
)
# What the loader raises for files that do not belong together, or are not what they say.
_MISFITS = (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError)


@dataclass(frozen=True)
class Candidate:
    """A network under its name. `model` gives logits (N, K) of images (N, C, H, W) in [0, 1].

    `identity` is equal for networks that were read from the same bytes in the same way.
    """

    name: str
    model: nn.Module
    classes: int
    footprint: Footprint
    weights_sha256: str
    identity: str


@dataclass(frozen=True)
class Reading:
    """How a file of bare weights is to be read; `architecture` None recognises it by its keys."""

    architecture: str | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None


def open_network(path: Path, *, name: str, shape: Shape, reading: Reading) -> Candidate:
    """The network in an exported folder or a checkpoint file, for images of `shape` (C, H, W).

    No code that lies beside the weights is run. Raises InvalidModel.
    """
    if not path.exists():
        raise InvalidModel(f"there is no {path}")
    if path.is_dir():
        return _exported(path, name=name, shape=shape)
    weights = read_checkpoint(path)
    shapes = {key: tuple(tensor.shape) for key, tensor in weights.items()}
    named = reading.architecture
    architecture = recognise(shapes) if named is None else fit(named, {}, shapes)
    if reading.mean is None or reading.std is None:
        raise InvalidModel(
            f"a file of weights ({architecture.name}) does not say how images are normalised. "
            + NORMALISATION_HELP,
            code="invalid_normalization",
        )
    if not len(reading.mean) == len(reading.std) == shape[0]:  # one value would fit any number
        raise InvalidModel(
            f"--mean and --std need one number for each of the {shape[0]} channels",
            code="invalid_normalization",
        )
    model = of_weights(architecture, weights, mean=reading.mean, std=reading.std)
    digest = file_sha256(path)
    read_as = json.dumps([architecture.to_json(), list(reading.mean), list(reading.std)])
    found = candidate(name, model, shape=shape, weights_sha256=digest)
    return replace(found, identity=f"{digest} {read_as}")


def of_weights(
    architecture: Architecture,
    weights: Mapping[str, Tensor],
    *,
    mean: Sequence[float],
    std: Sequence[float],
) -> nn.Module:
    """A network of the registry that takes images in [0, 1], in eval mode."""
    return NormalizedModel(load(architecture, weights), mean, std).eval()


def candidate(name: str, model: nn.Module, *, shape: Shape, weights_sha256: str) -> Candidate:
    """Look at a network with one image; raises InvalidModel where it does not take `shape`."""
    if not all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values()):
        raise InvalidModel("the weights hold NaN or infinite numbers", code="not_finite")
    try:
        with torch.no_grad():
            logits = model(torch.zeros(1, *shape))
        macs = count_macs(model, shape)
    except _MISFITS as error:
        raise InvalidModel(
            f"the network cannot take images of shape {list(shape)} ({_first_line(error)})",
            code="shape_mismatch",
        ) from error
    if logits.dim() != 2 or logits.shape[1] < 2:
        raise InvalidModel(
            f"the network is no classifier: one image gives outputs {list(logits.shape)}",
            code="unsupported_layer",
        )
    stored = sum(tensor.nbytes for tensor in model.state_dict().values())
    footprint = Footprint(count_parameters(model), macs, stored)
    return Candidate(
        name, model, logits.shape[1], footprint, weights_sha256, identity=weights_sha256
    )


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _exported(folder: Path, *, name: str, shape: Shape) -> Candidate:
    missing = [each for each in (WEIGHTS, ARCHITECTURE) if not (folder / each).is_file()]
    if missing:
        raise InvalidModel(
            f"the folder lacks {' and '.join(missing)}; give a folder that was exported by this "
            "service, or a file of weights",
            code="missing_files",
        )
    try:
        taken = json.loads((folder / ARCHITECTURE).read_text())["input"]["shape"]
        model = load_exported(folder)
    except _MISFITS as error:
        what = f"{type(error).__name__}: {_first_line(error)}"
        raise InvalidModel(f"the exported network cannot be loaded ({what})") from error
    if list(taken) != list(shape):
        raise InvalidModel(
            f"the network takes images of shape {taken}, the test images have {list(shape)}",
            code="shape_mismatch",
        )
    weights, read_as = file_sha256(folder / WEIGHTS), file_sha256(folder / ARCHITECTURE)
    found = candidate(name, model, shape=shape, weights_sha256=weights)
    return replace(found, identity=f"{weights} {read_as}")


def _first_line(error: Exception) -> str:
    return shown(next(iter(str(error).splitlines()), ""))
