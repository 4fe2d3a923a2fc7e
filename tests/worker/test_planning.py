"""Dry runs of the runner: real networks, and what is said of them without an image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from cstar_core.architectures import Architecture, build
from cstar_core.errors import TargetInfeasible
from cstar_core.factorization import factorise
from cstar_core.layers import count_macs, count_parameters
from cstar_core.pipeline.profiles import PROFILES
from cstar_core.ranks import RankPlan
from store.contracts import PlanRequest, document
from store.results import PlanResult
from tests.worker.test_validation import Heard, judged_model
from worker.protocol import MAX_LINE_BYTES, Spec, encode
from worker.runner.planning import plan

SMALL = Architecture("resnet8_cifar", {"width": 8, "in_channels": 1, "num_classes": 3})
SHAPE = (1, 8, 8)
NETWORK = build(SMALL, seed=1)


def spec(compression: dict[str, Any], *, shape: tuple[int, ...] = SHAPE, **fields: Any) -> Spec:
    targets = {"compression": compression}
    request = PlanRequest.model_validate({"model_id": "mdl_1", "targets": targets, **fields})
    return Spec(
        kind="plan",
        request=document(request),
        subject={"architecture": SMALL.to_json(), "input": {"shape": shape}},
        threads=1,
        memory_bytes=1,
        checkpoint_interval_s=1.0,
    )


def planned(folder: Path, compression: dict[str, Any], **fields: Any) -> PlanResult:
    save_file(NETWORK.state_dict(), folder / "weights.safetensors")
    voice = Heard()
    plan(spec(compression, **fields), folder, voice)
    assert len(encode(voice.result)) < MAX_LINE_BYTES
    return PlanResult.model_validate(json.loads(json.dumps(voice.result.result)))


def least_of(folder: Path) -> dict[str, int]:
    """Return the limits that the validation of the same network finds."""
    (folder / "output").mkdir()
    save_file(NETWORK.state_dict(), folder / "upload")
    return dict(judged_model(folder).result["limits"])


def test_every_candidate_costs_what_the_network_made_of_it_has(tmp_path: Path) -> None:
    found = planned(tmp_path, {"ratio": 3.0})

    assert [candidate.strategy for candidate in found.candidates][:2] == ["uniform", "energy"]
    for candidate in found.candidates:
        made = factorise(NETWORK, RankPlan.from_dict(candidate.model_dump()))
        tensors = made.state_dict().values()
        assert candidate.parameters == count_parameters(made)
        assert candidate.macs == count_macs(made, SHAPE)
        assert candidate.bytes == sum(tensor.nbytes for tensor in tensors)
        assert candidate.ratio >= 3.0


def test_every_layer_says_what_becomes_of_it_and_why(tmp_path: Path) -> None:
    found = planned(tmp_path, {"ratio": 3.0})

    for layer in found.plan.layers:
        assert (layer.method == "dense") == (layer.ranks is None) == bool(layer.reason)
        assert layer.latency_ns is not None
    assert "stem" in found.plan.layers[0].reason


def test_latency_is_predicted_although_nothing_limits_it(tmp_path: Path) -> None:
    found = planned(tmp_path, {"ratio": 3.0})

    assert all(candidate.latency_ms for candidate in found.candidates)
    assert "threads" in found.device


@pytest.mark.parametrize(
    ("limits", "within"),
    [
        ({"max_params": 3000}, lambda plan: plan.parameters <= 3000),
        ({"max_macs": 60_000}, lambda plan: plan.macs <= 60_000),
        ({"max_bytes": 16_000}, lambda plan: plan.bytes <= 16_000),
        (
            {"max_params": 4000, "max_bytes": 17_000, "max_latency_ms": 1e6},
            lambda plan: plan.parameters <= 4000 and plan.bytes <= 17_000,
        ),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_every_limit_is_kept(tmp_path: Path, limits: dict[str, Any], within: Any) -> None:
    found = planned(tmp_path, limits)

    assert all(within(candidate) for candidate in found.candidates)


@pytest.mark.parametrize(
    ("name", "limit"),
    [("max_params", "min_parameters"), ("max_macs", "min_macs"), ("max_bytes", "min_bytes")],
)
def test_the_least_that_a_validation_finds_is_planned_and_one_less_is_not(
    tmp_path: Path, name: str, limit: str
) -> None:
    least = least_of(tmp_path)[limit]

    assert planned(tmp_path, {name: least}).candidates
    with pytest.raises(TargetInfeasible):
        planned(tmp_path, {name: least - 1})


def test_ranks_are_multiples_of_what_is_asked_or_of_the_profiles(tmp_path: Path) -> None:
    def multiples(**fields: Any) -> set[Any]:
        found = planned(tmp_path, {"ratio": 3.0}, **fields)
        settings = [(candidate.model_extra or {})["settings"] for candidate in found.candidates]
        return {setting["multiple"] for setting in settings}

    assert multiples(options={"rank_multiple": 2}) == {2}
    assert multiples(profile="paper") == {PROFILES["paper"].rank_multiple}


def test_a_latency_out_of_reach_raises_with_the_best(tmp_path: Path) -> None:
    with pytest.raises(TargetInfeasible) as refusal:
        planned(tmp_path, {"max_latency_ms": 1e-6})

    assert refusal.value.unit == "latency"
    assert refusal.value.best > 1


def test_a_plan_changes_no_random_number_and_no_weight(tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in NETWORK.state_dict().items()}
    torch.manual_seed(7)
    planned(tmp_path, {"ratio": 3.0})
    drawn = torch.rand(1)
    torch.manual_seed(7)

    assert torch.equal(drawn, torch.rand(1))
    assert all(torch.equal(before[name], t) for name, t in NETWORK.state_dict().items())
