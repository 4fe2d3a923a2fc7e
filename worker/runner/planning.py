"""A dry run: ranks from the weights alone, before any training."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from safetensors.torch import load_file

from cstar_core.architectures import Architecture, load, stem_name
from cstar_core.layers import describe
from cstar_core.pipeline import PROFILES
from cstar_core.pipeline.budgets import budgets_within
from cstar_core.pipeline.profiles import adapt
from cstar_core.pipeline.task import Limits
from cstar_core.ranks import Inventory, plan_network, time_layers
from store.contracts import PlanRequest
from store.results import PlannedNetwork, PlanResult
from worker.protocol import Result, Spec
from worker.runner.voice import Voice

WEIGHTS = "weights.safetensors"


def plan(spec: Spec, folder: Path, voice: Voice) -> None:
    """Say every candidate; raises TargetInfeasible when no ranks meet the limits.

    None is scored: there are no images.
    """
    result = propose(spec, load_file(folder / WEIGHTS))
    voice.say(Result(result=result.model_dump(mode="json")))


def propose(spec: Spec, weights: dict[str, torch.Tensor]) -> PlanResult:
    """Choose ranks for the uploaded network, timing its layers on this machine's device.

    The times enter the choice only where latency is limited.
    """
    request = PlanRequest.model_validate(spec.request)
    architecture = Architecture.from_json(spec.subject["architecture"])
    network = load(architecture, weights).eval()
    layers = describe(  # on the meta device images of any size cost nothing
        copy.deepcopy(network).to("meta"),
        spec.subject["input"]["shape"],
        stem=stem_name(architecture),
    )
    limits = Limits(**request.targets.compression.model_dump())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    latency = time_layers(network.to(device), layers)
    proposal = plan_network(
        network,
        layers,
        budgets_within(limits, Inventory.of(network, layers)),
        latency=latency,
        multiple=adapt(PROFILES[request.profile], **request.options.model_dump()).rank_multiple,
    )
    return PlanResult(
        device=latency.device,
        recommended=proposal.recommended.name,
        candidates=[PlannedNetwork(**candidate.to_dict()) for candidate in proposal.plans],
    )
