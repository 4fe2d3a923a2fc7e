"""Judging uploads: weights against an architecture, and data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from cstar_core.architectures import Architecture, fit, load, recognise, stem_name
from cstar_core.errors import CstarError, InvalidDataset, InvalidModel
from cstar_core.files.checkpoints import read_checkpoint, write_weights
from cstar_core.files.datasets import (
    DatasetArrays,
    read_image_folder_zip,
    read_npz,
    split,
    write_dataset,
)
from cstar_core.layers import count_macs, count_parameters, describe
from cstar_core.ranks import Inventory, minimum
from store.contracts import DatasetRequest, ModelRequest, NamedArchitecture
from worker.protocol import OUTPUT_FOLDER, OutputFile, Result, Spec
from worker.runner.shortage import shortage
from worker.runner.voice import Voice, printable

WEIGHTS = "weights.safetensors"
DATASET = "dataset.npz"


def validate_model(spec: Spec, folder: Path, voice: Voice) -> None:
    """Say whether the upload fits an architecture, with the reasons if it does not."""
    request = ModelRequest.model_validate(spec.request)
    try:
        findings = _judge_model(request, folder)
    except InvalidModel as error:
        if shortage(error):
            raise
        voice.say(Result(result={"reasons": [_reason(error)]}))
        return
    weights = OutputFile(kind="weights", filename=WEIGHTS, media_type="application/octet-stream")
    voice.say(Result(result={"reasons": [], **findings}, files=[weights]))


def validate_dataset(spec: Spec, folder: Path, voice: Voice) -> None:
    """Say whether the upload is a data set, and write the canonical copy if it is."""
    request = DatasetRequest.model_validate(spec.request)
    try:
        arrays = _read_dataset(request, folder / "upload")
    except InvalidDataset as error:
        if shortage(error):
            raise
        voice.say(Result(result={"reasons": [_reason(error)]}))
        return
    write_dataset(arrays, folder / OUTPUT_FOLDER / DATASET)
    dataset = OutputFile(kind="dataset", filename=DATASET, media_type="application/octet-stream")
    voice.say(Result(result={"reasons": [], **_describe(arrays)}, files=[dataset]))


def _judge_model(request: ModelRequest, folder: Path) -> dict[str, Any]:
    state = read_checkpoint(folder / "upload")
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    architecture = _architecture(request.architecture, shapes)
    network, stem = load(architecture, state), stem_name(architecture)
    _check_fit(request, architecture)
    write_weights(network.state_dict(), folder / OUTPUT_FOLDER / WEIGHTS)
    return {"architecture": architecture.to_json(), **_measure(network.to("meta"), request, stem)}


def _measure(network: nn.Module, request: ModelRequest, stem: str) -> dict[str, Any]:
    """Count what the network has and needs; on the meta device, so that only shapes can fail."""
    try:
        layers = describe(network, request.input.shape, stem=stem)
        macs = count_macs(network, request.input.shape)
    except (RuntimeError, TypeError) as error:  # a layer with nothing to work on; a huge number
        raise InvalidModel(
            f"The network cannot take images of shape {list(request.input.shape)} "
            f"({str(error).splitlines()[0]}); send the shape it was trained with.",
            code="shape_mismatch",
        ) from error
    inventory = Inventory.of(network, layers)
    return {
        "parameters": count_parameters(network),
        "macs": macs,
        "limits": {
            "min_parameters": minimum(inventory, "parameters"),
            "min_macs": minimum(inventory, "macs"),
            "min_bytes": minimum(inventory, "bytes"),
        },
    }


def _architecture(
    wanted: NamedArchitecture | str, shapes: dict[str, tuple[int, ...]]
) -> Architecture:
    if isinstance(wanted, NamedArchitecture):
        return fit(wanted.name, wanted.arguments, shapes)
    return recognise(shapes)


def _check_fit(request: ModelRequest, architecture: Architecture) -> None:
    """Compare what the client says of input and classes with what the weights say."""
    said = {"in_channels": request.input.shape[0], "num_classes": request.num_classes}
    for name, value in said.items():
        actual = architecture.arguments.get(name, value)
        if actual != value:
            raise InvalidModel(
                f"the request says {name} = {value}, but the weights are for {actual}; "
                f"send {name} = {actual} or other weights",
                code="weights_do_not_fit",
            )


def _read_dataset(request: DatasetRequest, path: Path) -> DatasetArrays:
    read = read_npz if request.format == "npz" else read_image_folder_zip
    return split(read(path), seed=request.seed)


def _describe(arrays: DatasetArrays) -> dict[str, Any]:
    height, width, channels = arrays.train_images.shape[1:]
    return {
        "num_examples": {"train": len(arrays.train_labels), "test": len(arrays.test_labels)},
        "shape": [channels, height, width],
        "num_classes": arrays.num_classes,
        "class_names": [printable(name) for name in arrays.class_names or ()] or None,
        "content_sha256": arrays.sha256,
    }


def _reason(error: CstarError) -> dict[str, str]:
    return {"code": error.code, "detail": printable(str(error))}
