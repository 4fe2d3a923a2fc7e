"""Judging uploads: real checkpoints and data sets, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from cstar_core.architectures import Architecture, build
from cstar_core.files.checkpoints import write_weights
from cstar_core.files.datasets import load_dataset
from store.contracts import DatasetRequest, ModelRequest
from worker.protocol import Message, Result, Spec, decode, encode
from worker.runner.validation import validate_dataset, validate_model
from worker.runner.voice import Voice

SMALL = Architecture("resnet8_cifar", {"width": 4, "in_channels": 1, "num_classes": 3})
INPUT = {"shape": [1, 8, 8], "mean": [0.5], "std": [0.25]}
MODEL = {"name": "small", "file_id": "file_1", "input": INPUT, "num_classes": 3}
DATASET = {"name": "small", "file_id": "file_2"}


class Heard(Voice):
    """A voice into a list, over the same bytes as the pipe."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def say(self, message: Message) -> None:
        self.messages.append(decode(encode(message)))

    @property
    def result(self) -> Result:
        (message,) = self.messages
        assert isinstance(message, Result)
        return message


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "output").mkdir()
    return tmp_path


def judged(
    validate: Callable[[Spec, Path, Voice], None], request: Mapping[str, Any], folder: Path
) -> Result:
    spec = Spec(
        kind=validate.__name__,
        request=dict(request),
        threads=1,
        memory_bytes=1,
        checkpoint_interval_s=1.0,
    )
    voice = Heard()
    validate(spec, folder, voice)
    return voice.result


def judged_model(folder: Path, **changes: Any) -> Result:
    request = ModelRequest.model_validate({**MODEL, **changes})
    return judged(validate_model, request.model_dump(mode="json"), folder)


def judged_dataset(folder: Path, **changes: Any) -> Result:
    request = DatasetRequest.model_validate({**DATASET, **changes})
    return judged(validate_dataset, request.model_dump(mode="json"), folder)


def reason(result: Result) -> tuple[str, str]:
    """Return code and detail of the only reason; nothing else may be there."""
    assert result.files == []
    assert set(result.result) == {"reasons"}
    (found,) = result.result["reasons"]
    return found["code"], found["detail"]


def small_state() -> dict[str, Tensor]:
    return dict(build(SMALL, seed=1).state_dict())


@pytest.mark.parametrize("wanted", ["auto", {"name": "resnet8_cifar"}], ids=["auto", "named"])
def test_weights_that_fit_are_ready_with_what_the_smallest_version_needs(
    folder: Path, wanted: Any
) -> None:
    write_weights(small_state(), folder / "upload")
    result = judged_model(folder, architecture=wanted)

    found = result.result
    assert (found["reasons"], [file.filename for file in result.files]) == (
        [],
        ["weights.safetensors"],
    )
    assert found["architecture"] == SMALL.to_json()
    assert found["parameters"] == sum(p.numel() for p in build(SMALL).parameters())
    assert 0 < found["limits"]["min_parameters"] < found["parameters"]
    assert 0 < found["limits"]["min_macs"] < found["macs"]
    written = sum(tensor.nbytes for tensor in build(SMALL).state_dict().values())
    assert 4 * found["limits"]["min_parameters"] < found["limits"]["min_bytes"] < written


def test_the_weights_that_are_kept_are_those_that_were_sent(folder: Path) -> None:
    state = small_state()
    torch.save(
        {"state_dict": {f"module.{name}": t for name, t in state.items()}}, folder / "upload"
    )
    judged_model(folder)
    kept = load_file(folder / "output" / "weights.safetensors")

    assert set(kept) == set(state)
    assert all(torch.equal(kept[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"num_classes": 10}, "num_classes = 3"),
        (
            {"input": {"shape": [3, 8, 8], "mean": [0.5] * 3, "std": [0.25] * 3}},
            "in_channels = 1",
        ),
    ],
    ids=["classes", "channels"],
)
def test_a_request_that_says_something_else_than_the_weights_is_told_what_they_say(
    folder: Path, changes: dict[str, Any], told: str
) -> None:
    write_weights(small_state(), folder / "upload")
    code, detail = reason(judged_model(folder, **changes))

    assert code == "weights_do_not_fit"
    assert told in detail


def test_a_missing_key_is_named(folder: Path) -> None:
    state = small_state()
    del state["bn1.weight"]
    write_weights(state, folder / "upload")
    code, detail = reason(judged_model(folder, architecture={"name": "resnet8_cifar"}))

    assert code == "weights_do_not_fit"
    assert "bn1.weight" in detail


def test_weights_of_nothing_that_is_known_are_told_what_is(folder: Path) -> None:
    write_weights({"weight": torch.ones(2)}, folder / "upload")
    code, detail = reason(judged_model(folder))

    assert code == "architecture_not_recognised"
    assert "resnet20_cifar" in detail


def test_an_unknown_architecture_is_told_the_known_ones(folder: Path) -> None:
    write_weights(small_state(), folder / "upload")
    code, detail = reason(judged_model(folder, architecture={"name": "resnet9000"}))

    assert code == "unknown_architecture"
    assert "resnet20_cifar" in detail


def test_images_too_small_for_the_network_are_a_reason(folder: Path) -> None:
    network = build(Architecture("vgg16_bn_cifar", {"in_channels": 1, "num_classes": 3}))
    write_weights(network.state_dict(), folder / "upload")
    code, detail = reason(judged_model(folder))

    assert code == "shape_mismatch"
    assert "[1, 8, 8]" in detail


@pytest.mark.parametrize("side", [10**5, 10**30])
def test_images_of_an_absurd_size_take_no_memory(folder: Path, side: int) -> None:
    write_weights(small_state(), folder / "upload")
    result = judged_model(folder, input={**INPUT, "shape": [1, side, side]})

    assert [found["code"] for found in result.result["reasons"]] in ([], ["shape_mismatch"])


def test_a_pickled_module_is_refused_and_its_classes_named(folder: Path) -> None:
    torch.save(nn.Sequential(nn.Linear(2, 2)), folder / "upload")
    code, detail = reason(judged_model(folder))

    assert code == "pickled_module"
    assert "torch.nn.modules.container.Sequential" in detail


class Evil:
    """Runs code when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.place,)


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(folder: Path, tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2), "more": Evil(tmp_path / "ran")}, folder / "upload")
    code, _ = reason(judged_model(folder))

    assert code == "pickled_module"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "code"), [(b"", "empty_file"), (b"not a checkpoint", "unknown_format")]
)
def test_a_file_that_is_no_checkpoint_is_refused(folder: Path, content: bytes, code: str) -> None:
    (folder / "upload").write_bytes(content)

    assert reason(judged_model(folder))[0] == code


def save_dataset(folder: Path, **arrays: Any) -> None:
    """Write twelve small images of three classes, departing from that as `arrays` says."""
    images = np.arange(12 * 8 * 8, dtype=np.uint8).reshape(12, 8, 8, 1)
    with (folder / "upload").open("wb") as file:
        np.savez(file, **{"images": images, "labels": np.arange(12) % 3, **arrays})


def test_a_data_set_is_ready_with_its_split_and_a_canonical_copy(folder: Path) -> None:
    save_dataset(folder, class_names=np.array(["cat", "dog", "größer"]))
    result = judged_dataset(folder)
    found = result.result
    kept = load_dataset(folder / "output" / "dataset.npz")

    assert found["reasons"] == []
    assert found["num_examples"] == {"train": 10, "test": 2}
    assert (found["shape"], found["num_classes"]) == ([1, 8, 8], 3)
    assert found["class_names"] == ["cat", "dog", "größer"]
    assert found["content_sha256"] == kept.sha256
    assert [file.filename for file in result.files] == ["dataset.npz"]


def test_the_seed_decides_the_split(folder: Path) -> None:
    save_dataset(folder)
    first, again, other = (
        judged_dataset(folder, seed=seed).result["content_sha256"] for seed in (1, 1, 2)
    )

    assert first == again != other


@pytest.mark.parametrize(
    ("labels", "code"),
    [
        (np.full(12, -1), "negative_labels"),
        (np.full(12, 10**9), "too_large"),
        (np.arange(11), "length_mismatch"),
        (np.linspace(0, 2, 12), "wrong_dtype"),
        (np.zeros((12, 1), np.int64), "wrong_shape"),
    ],
    ids=["negative", "huge", "too few", "fractions", "two-dimensional"],
)
def test_labels_that_are_none_are_a_reason(folder: Path, labels: Any, code: str) -> None:
    save_dataset(folder, labels=labels)

    assert reason(judged_dataset(folder))[0] == code


def test_images_of_numbers_other_than_bytes_are_a_reason(folder: Path) -> None:
    save_dataset(folder, images=np.zeros((12, 8, 8, 1), np.float32))

    assert reason(judged_dataset(folder))[0] == "wrong_dtype"


def test_class_names_that_no_database_holds_are_made_harmless(folder: Path) -> None:
    save_dataset(folder, class_names=np.array(["a\0b", "\ud800", "dog"]))

    assert judged_dataset(folder).result["class_names"] == [
        "a\N{REPLACEMENT CHARACTER}b",
        "?",
        "dog",
    ]
