"""What a client may ask for, and what is refused with a reason."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from store.contracts import (
    CompressionTarget,
    Contract,
    DatasetRequest,
    JobRequest,
    ModelRequest,
    PlanRequest,
    RobustnessTarget,
    document,
)

MODEL: dict[str, Any] = {
    "name": "resnet20",
    "file_id": "file_1",
    "input": {"shape": [3, 32, 32], "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]},
    "num_classes": 10,
}
DATASET: dict[str, Any] = {"name": "cifar10", "file_id": "file_2"}
JOB: dict[str, Any] = {
    "model_id": "mdl_1",
    "dataset_id": "dts_1",
    "targets": {
        "compression": {"ratio": 4.0},
        "robustness": {"norm": "linf", "epsilon": 0.03137, "min_accuracy": 0.3},
        "min_clean_accuracy": 0.6,
    },
    "evaluation": {"examples": 1000, "autoattack_examples": 64},
    "options": {"augmentation": "crop"},
    "labels": {"team": "vision"},
    "max_runtime_s": 3600,
}
EVALUATION: dict[str, Any] = {
    "kind": "evaluate",
    "model_id": "mdl_1",
    "dataset_id": "dts_1",
    "baseline_model_id": "mdl_0",
    "targets": {"robustness": {"epsilon": 0.03137, "min_accuracy": 0.3}},
    "evaluation": {"examples": 1000, "autoattack_examples": 64, "probe_examples": 128},
}
PLAN: dict[str, Any] = {
    "model_id": "mdl_1",
    "profile": "paper",
    "targets": {"compression": {"max_bytes": 100_000, "max_latency_ms": 2.5}},
    "options": {"rank_multiple": 8},
}
BODIES: dict[type[Contract], dict[str, Any]] = {
    PlanRequest: PLAN,
    ModelRequest: MODEL,
    DatasetRequest: DATASET,
    JobRequest: JOB,
}


def changed(body: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a copy of `body` with the field at the dotted path set."""
    result = copy.deepcopy(body)
    *parents, last = path.split(".")
    place = result
    for name in parents:
        place = place[name]
    place[last] = value
    return result


def refusal(contract: type[Contract], body: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as error:
        contract.model_validate(body)
    return str(error.value)


@pytest.mark.parametrize("contract", BODIES)
def test_a_documented_body_is_understood(contract: type[Contract]) -> None:
    assert contract.model_validate(BODIES[contract])


@pytest.mark.parametrize("contract", BODIES)
def test_a_request_survives_being_written_down(contract: type[Contract]) -> None:
    request = contract.model_validate(BODIES[contract])
    assert contract.model_validate(document(request)) == request


def test_defaults_are_written_down() -> None:
    job = document(JobRequest.model_validate(JOB))
    assert (job["profile"], job["seed"], job["method"]) == ("quick", 0, "cstar")
    assert document(ModelRequest.model_validate(MODEL))["architecture"] == "auto"
    assert document(DatasetRequest.model_validate(DATASET))["format"] == "npz"


@pytest.mark.parametrize(
    ("contract", "path"),
    [
        (ModelRequest, "surprise"),
        (ModelRequest, "input.surprise"),
        (DatasetRequest, "surprise"),
        (PlanRequest, "surprise"),
        (PlanRequest, "targets.surprise"),
        (PlanRequest, "options.surprise"),
        (JobRequest, "surprise"),
        (JobRequest, "targets.surprise"),
        (JobRequest, "targets.compression.surprise"),
        (JobRequest, "targets.robustness.surprise"),
        (JobRequest, "evaluation.surprise"),
        (JobRequest, "options.surprise"),
    ],
)
def test_an_unknown_field_is_refused_by_name(contract: type[Contract], path: str) -> None:
    assert "surprise" in refusal(contract, changed(BODIES[contract], path, 1))


def numbers(body: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Yield the dotted path and value of each number in a body."""
    if isinstance(body, dict):
        for name, value in body.items():
            yield from numbers(value, f"{path}.{name}".lstrip("."))
    elif isinstance(body, int | float) and not isinstance(body, bool):
        yield path, body


@pytest.mark.parametrize("other", [True, False, "7"])
@pytest.mark.parametrize(
    ("contract", "path"),
    [(contract, path) for contract, body in BODIES.items() for path, _ in numbers(body)],
)
def test_what_is_no_number_in_json_is_none(
    contract: type[Contract], path: str, other: object
) -> None:
    assert "should be a number" in refusal(contract, changed(BODIES[contract], path, other))


@pytest.mark.parametrize("other", [True, "0.5"])
def test_what_is_no_number_in_json_is_none_in_a_list_either(other: object) -> None:
    assert "should be a number" in refusal(ModelRequest, changed(MODEL, "input.mean", [other]))


def test_a_whole_number_may_be_written_with_an_exponent() -> None:
    body = changed(JOB, "targets.compression.max_params", 1e6)
    limits = JobRequest.model_validate(body).targets.compression
    assert limits is not None
    assert limits.max_params == 1_000_000


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("targets.compression.ratio", 1.0),
        ("targets.compression.ratio", -4.0),
        ("targets.compression.ratio", float("inf")),
        ("targets.compression.ratio", float("nan")),
        ("targets.compression.max_params", 0),
        ("targets.compression.max_macs", -1),
        ("targets.compression.max_bytes", 0),
        ("targets.compression.max_latency_ms", 0.0),
        ("targets.compression.max_latency_ms", float("inf")),
        ("targets.robustness.epsilon", 0.0),
        ("targets.robustness.epsilon", float("nan")),
        ("targets.robustness.norm", "l1"),
        ("targets.robustness.min_accuracy", 1.01),
        ("targets.min_clean_accuracy", -0.1),
        ("evaluation.examples", 0),
        ("evaluation.autoattack_examples", 0),
        ("profile", "slow"),
        ("method", "magic"),
        ("seed", -1),
        ("seed", 2**31),
        ("priority", 101),
        ("max_runtime_s", 0),
        ("max_runtime_s", 2**31),
        ("options.admm_epochs", 0),
        ("options.rank_multiple", 65),
        ("options.augmentation", "mixup"),
        ("labels", {str(number): "x" for number in range(33)}),
        ("labels", {"team": 7}),
        ("model_id", "mdl_\x00"),
        ("dataset_id", "dts_\x00"),
    ],
)
def test_a_job_that_makes_no_sense_is_refused(path: str, value: Any) -> None:
    assert path.rpartition(".")[2] in refusal(JobRequest, changed(JOB, path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", ""),
        ("name", "x" * 201),
        ("name", "nul\x00"),
        ("file_id", "file_\x00"),
        ("num_classes", 1),
        ("num_classes", 2**31),
        ("input.shape", [3, 32]),
        ("input.shape", [3, 0, 32]),
        ("input.std", [0.2, 0.0, 0.2]),
        ("input.mean", [0.5, float("nan"), 0.5]),
        ("architecture", "resnet20"),
    ],
)
def test_a_model_that_makes_no_sense_is_refused(path: str, value: Any) -> None:
    assert path.rpartition(".")[2] in refusal(ModelRequest, changed(MODEL, path, value))


@pytest.mark.parametrize(
    ("path", "value"), [("name", ""), ("name", "nul\x00"), ("format", "tar"), ("seed", -1)]
)
def test_a_data_set_that_makes_no_sense_is_refused(path: str, value: Any) -> None:
    assert path in refusal(DatasetRequest, changed(DATASET, path, value))


def test_a_name_may_have_any_letters() -> None:
    assert ModelRequest.model_validate(changed(MODEL, "name", "réseau à 20 couches \U0001f41f"))


def test_an_architecture_may_be_named_with_arguments() -> None:
    named = {"name": "resnet20_cifar", "arguments": {"width": 16, "bias": True}}
    request = ModelRequest.model_validate(changed(MODEL, "architecture", named))
    assert document(request)["architecture"] == named


@pytest.mark.parametrize("field", ["mean", "std"])
def test_mean_and_std_have_one_value_a_channel(field: str) -> None:
    assert "3 channels" in refusal(ModelRequest, changed(MODEL, f"input.{field}", [0.5]))


def test_a_compression_target_says_what_may_be_given() -> None:
    limits = "ratio, max_params, max_macs, max_bytes, max_latency_ms"
    with pytest.raises(ValidationError, match=f"at least one of {limits}"):
        CompressionTarget()


@pytest.mark.parametrize("name", CompressionTarget.model_fields)
def test_one_limit_is_enough(name: str) -> None:
    assert CompressionTarget.model_validate({name: 1000})


def test_an_epsilon_of_8_is_told_about_pixel_space() -> None:
    with pytest.raises(ValidationError, match=r"8/255 is 0\.03137"):
        RobustnessTarget(norm="linf", epsilon=8.0)


def test_an_l2_epsilon_may_be_above_one() -> None:
    assert RobustnessTarget(norm="l2", epsilon=1.5).epsilon == 1.5


def test_a_request_without_a_kind_is_a_compression() -> None:
    request = JobRequest.model_validate(JOB)
    assert (request.kind, request.method, request.compression.ratio) == ("compress", "cstar", 4.0)


def test_a_compression_says_how_small() -> None:
    body = changed(JOB, "targets", {"robustness": {"epsilon": 0.1}})
    with pytest.raises(ValidationError) as error:
        JobRequest.model_validate(body)
    (found,) = error.value.errors()
    assert (found["type"], found["loc"]) == ("missing", ("targets", "compression"))


def test_an_evaluation_is_written_down_without_what_it_does_not_have() -> None:
    written = document(JobRequest.model_validate(EVALUATION))
    assert not {"method", "profile", "options"} & set(written)
    assert written["targets"]["compression"] is None
    assert document(JobRequest.model_validate(written)) == written


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("method", "cstar"),
        ("profile", "quick"),
        ("options", {}),
        ("targets.compression", {"ratio": 2.0}),
    ],
)
def test_an_evaluation_takes_nothing_of_a_compression_and_says_where_it_is(
    path: str, value: Any
) -> None:
    with pytest.raises(ValidationError) as error:
        JobRequest.model_validate(changed(EVALUATION, path, value))
    (found,) = error.value.errors()
    assert ".".join(str(part) for part in found["loc"]) == path
    assert "changes nothing" in found["msg"]


def test_an_evaluation_says_against_whom() -> None:
    assert "targets.robustness" in refusal(JobRequest, changed(EVALUATION, "targets", {}))


def test_a_compression_takes_no_baseline() -> None:
    body = JOB | {"baseline_model_id": "mdl_0"}
    assert "the model it began with" in refusal(JobRequest, body)
