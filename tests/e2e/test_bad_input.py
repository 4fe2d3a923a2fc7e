"""Bad input through the real stack: a problem that says what to do next, and nothing left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from cstar_client import ApiError, Client, Rejected
from cstar_client.documents import Model, Reference
from stack.demo.digits import CLASSES
from stack.embedded import Stack
from store.blobs import BlobStore
from tests.e2e.requests import CHECKPOINT, INPUT, Uploads, job_body
from tests.security.hostile.files import HOSTILE


def created_model(client: Client, file: Reference, architecture: Any = "auto") -> Model:
    return client.models.create(
        file, name="digits", input=INPUT, num_classes=CLASSES, architecture=architecture
    )


def rejected_model(client: Client, path: Path, architecture: Any = "auto") -> dict[str, Any]:
    file = client.files.upload(path, purpose="checkpoint")
    with pytest.raises(Rejected) as rejection:
        client.models.wait(created_model(client, file, architecture))
    (reason,) = rejection.value.reasons
    assert {"type", "title", "code", "detail"} <= set(reason)
    return dict(reason)


def refusal(act: Callable[[], Any]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        act()
    return caught.value


@pytest.fixture(autouse=True)
def nothing_left_behind(stack: Stack) -> Any:
    yield
    store = BlobStore(stack.settings.resolved_blob_url)
    assert store.names("staging/") == []


def test_weights_of_another_shape_are_named(client: Client, tmp_path: Path) -> None:
    state = {name: tensor.clone() for name, tensor in load_file(CHECKPOINT).items()}
    state["linear.weight"] = state["linear.weight"][:, :32].clone()
    del state["bn1.weight"]
    torch.save(state, tmp_path / "odd.pt")
    reason = rejected_model(client, tmp_path / "odd.pt", {"name": "resnet8_cifar", "arguments": {}})

    assert reason["code"] == "weights_do_not_fit"
    assert "linear.weight" in reason["detail"]
    assert "bn1.weight" in reason["detail"]


def test_a_whole_module_is_refused_and_its_globals_named(client: Client, tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "module.pt")
    reason = rejected_model(client, tmp_path / "module.pt")

    assert reason["code"] == "pickled_module"
    assert "torch.nn.modules.container.Sequential" in reason["detail"]
    assert "state_dict" in reason["detail"]


def test_a_truncated_file_is_refused(client: Client, tmp_path: Path) -> None:
    data = CHECKPOINT.read_bytes()
    (tmp_path / "half.safetensors").write_bytes(data[: len(data) // 2])
    reason = rejected_model(client, tmp_path / "half.safetensors")

    assert reason["code"] == "truncated_file"


def test_an_unknown_architecture_is_refused_at_once_with_the_known_ones(
    client: Client, uploads: Uploads
) -> None:
    file_id = uploads.model["file_id"]
    error = refusal(lambda: created_model(client, file_id, {"name": "resnet9000"}))

    assert (error.status, error.problem["code"]) == (422, "unknown_architecture")
    assert "resnet20_cifar" in error.problem["known"]


def test_a_wrong_digest_leaves_no_bytes(
    client: Client, stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BlobStore(stack.settings.resolved_blob_url)
    before = store.names("sha256/")
    (tmp_path / "new.safetensors").write_bytes(CHECKPOINT.read_bytes() + b" ")
    monkeypatch.setattr("cstar_client.uploads.sha256", lambda _: bytes(32))
    path = tmp_path / "new.safetensors"
    error = refusal(lambda: client.files.upload(path, purpose="checkpoint"))

    assert error.problem["code"] == "digest_mismatch"
    assert store.names("sha256/") == before


def test_labels_outside_the_classes_are_refused(
    client: Client, uploads: Uploads, tmp_path: Path
) -> None:
    images = np.zeros((80, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "eleven.npz", images=images, labels=np.arange(80) % 11)
    dataset = client.datasets.upload(tmp_path / "eleven.npz")
    error = refusal(lambda: client.jobs.create(job_body(uploads, dataset_id=dataset["id"])))

    assert (error.status, error.problem["code"]) == (422, "labels_outside_classes")


def test_images_of_another_shape_are_refused(
    client: Client, uploads: Uploads, tmp_path: Path
) -> None:
    images = np.zeros((80, 9, 9, 1), np.uint8)
    np.savez(tmp_path / "nine.npz", images=images, labels=np.arange(80) % 10)
    dataset = client.datasets.upload(tmp_path / "nine.npz")
    error = refusal(lambda: client.jobs.create(job_body(uploads, dataset_id=dataset["id"])))

    assert (error.status, error.problem["code"]) == (422, "shape_mismatch")


def test_a_ratio_out_of_reach_is_refused_with_the_largest_and_that_one_is_accepted(
    client: Client, uploads: Uploads
) -> None:
    def body(ratio: float) -> dict[str, Any]:
        targets = {"compression": {"ratio": ratio}, "robustness": {"epsilon": 0.1}}
        return job_body(uploads, targets=targets)

    error = refusal(lambda: client.jobs.create(body(10_000)))
    assert (error.status, error.problem["code"]) == (422, "target_infeasible")
    accepted = client.jobs.create(body(error.problem["best"]["ratio"]))
    client.jobs.cancel(accepted)
    client.jobs.wait(accepted, check=False)


def test_an_unknown_field_in_the_targets_is_refused_with_its_pointer(
    client: Client, uploads: Uploads
) -> None:
    targets = {"compression": {"ratio": 4, "sparsity": 0.5}, "robustness": {"epsilon": 0.1}}
    error = refusal(lambda: client.jobs.create(job_body(uploads, targets=targets)))

    assert (error.status, error.problem["code"]) == (422, "invalid_request")
    assert error.problem["errors"][0]["pointer"] == "/targets/compression/sparsity"


def test_a_job_on_a_rejected_model_is_refused_with_the_reasons(
    client: Client, uploads: Uploads, tmp_path: Path
) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "alien.pt")
    model = created_model(client, client.files.upload(tmp_path / "alien.pt", purpose="checkpoint"))
    with pytest.raises(Rejected):
        client.models.wait(model)
    error = refusal(lambda: client.jobs.create(job_body(uploads, model_id=model["id"])))

    assert (error.status, error.problem["code"]) == (422, "model_rejected")
    assert error.problem["reasons"][0]["code"] == "architecture_not_recognised"


@pytest.mark.parametrize("name", ["pickle that runs code, beside weights", "infinity"])
def test_a_hostile_checkpoint_is_rejected_and_runs_nothing(
    client: Client, tmp_path: Path, name: str
) -> None:
    hostile, canary = HOSTILE[name], tmp_path / "canary"
    (tmp_path / hostile.filename).write_bytes(hostile.build(canary))
    assert rejected_model(client, tmp_path / hostile.filename)["code"] == hostile.code
    assert not canary.exists()


@pytest.mark.parametrize("name", ["nested bomb", "pickle that runs code, as labels"])
def test_a_hostile_data_set_is_rejected_and_runs_nothing(
    client: Client, tmp_path: Path, name: str
) -> None:
    hostile, canary = HOSTILE[name], tmp_path / "canary"
    (tmp_path / hostile.filename).write_bytes(hostile.build(canary))
    file = client.files.upload(tmp_path / hostile.filename, purpose="dataset")
    kind = "npz" if hostile.filename.endswith(".npz") else "image_folder"
    with pytest.raises(Rejected) as rejection:
        client.datasets.wait(client.datasets.create(file, name="hostile", format=kind))
    (reason,) = rejection.value.reasons
    assert reason["code"] == hostile.code
    assert not canary.exists()
