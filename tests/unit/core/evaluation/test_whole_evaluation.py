"""An evaluation as a whole: what it says of two networks, interrupted anywhere, and its verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from cstar_core.architectures import Architecture, load
from cstar_core.attacks import ThreatModel
from cstar_core.evaluation.examples import Examples
from cstar_core.evaluation.run import WAY, Networks, evaluate
from cstar_core.evaluation.settings import EvaluationSettings
from cstar_core.evaluation.targets import accuracy_target
from cstar_core.evaluation.verdict import verdict
from cstar_core.files.checkpoints import read_checkpoint
from cstar_core.normalization import NormalizedModel
from stack.demo import digits

SETTINGS = EvaluationSettings(
    threat=ThreatModel("linf", 0.3),  # where AutoAttack soon breaks nearly everything
    seed=0,
    examples=24,
    autoattack_examples=6,
    probe_examples=16,
)


class Stop(Exception):
    """The process is gone."""


class Watching:
    """Keeps what it hears; stops at the `stop_at`-th finished batch."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at = stop_at
        self.batches = 0
        self.fractions: list[float] = []
        self.events: list[tuple[str, Mapping[str, Any]]] = []

    def progress(self, fraction: float) -> None:
        self.fractions.append(fraction)

    def kept(self) -> None:
        self.batches += 1
        if self.batches == self.stop_at:
            raise Stop

    def event(self, name: str, data: Mapping[str, Any]) -> None:
        self.events.append((name, data))


@pytest.fixture(scope="module")
def network() -> NormalizedModel:
    """The demo's robust network."""
    weights = read_checkpoint(Path(digits.__file__).parent / "digits_resnet8.safetensors")
    arguments = {"width": 16, "in_channels": 1, "num_classes": 10}
    loaded = load(Architecture("resnet8_cifar", arguments), weights)
    return NormalizedModel(loaded, digits.MEAN, digits.STD).eval()


@pytest.fixture(scope="module")
def perturbed(network: NormalizedModel) -> NormalizedModel:
    """The same network with noise on its weights: another one, about as good."""
    arguments = {"width": 16, "in_channels": 1, "num_classes": 10}
    source = torch.Generator().manual_seed(0)
    weights = {
        name: tensor
        + (
            0.05 * tensor.std() * torch.randn(tensor.shape, generator=source)
            if tensor.dim() > 1
            else 0
        )
        for name, tensor in network.network.state_dict().items()
    }
    loaded = load(Architecture("resnet8_cifar", arguments), weights)
    return NormalizedModel(loaded, digits.MEAN, digits.STD).eval()


@pytest.fixture(scope="module")
def test_split() -> Examples:
    found = digits.load_digits()
    pixels = torch.from_numpy(found.test_images[:100]).permute(0, 3, 1, 2).contiguous()
    return Examples(pixels, torch.from_numpy(found.test_labels[:100]).long())


@pytest.fixture(scope="module")
def networks(network: NormalizedModel, perturbed: NormalizedModel) -> Networks:
    return Networks(before=network, after=perturbed)


@pytest.fixture(scope="module")
def watching() -> Watching:
    return Watching()


@pytest.fixture(scope="module")
def ledgers() -> dict[str, Any]:
    return {}


@pytest.fixture(scope="module")
def found(
    networks: Networks, test_split: Examples, watching: Watching, ledgers: dict[str, Any]
) -> dict[str, Any]:
    return evaluate(networks, test_split, SETTINGS, ledgers=ledgers, watch=watching)


def test_what_is_found_is_json_data(found: dict[str, Any]) -> None:
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_both_networks_are_attacked_on_the_same_examples(found: dict[str, Any]) -> None:
    assert found["attacked"]["n"] == 24
    assert len(set(found["attacked"]["index"])) == 24
    assert len(found["attacked"]["sha256"]) == 64
    for piece, n in (("clean", 100), ("pgd", 24), ("autoattack", 6)):
        assert {found[name][piece]["n"] for name in ("before", "after")} == {n}
        assert found["paired"][piece]["n"] == n


def test_an_honest_network_is_not_flagged(found: dict[str, Any]) -> None:
    assert found["before"]["flags"] == []


def test_the_worst_case_is_no_better_than_any_attack(found: dict[str, Any]) -> None:
    for name in ("before", "after"):
        assert found[name]["worst_case"]["correct"] <= found[name]["autoattack"]["correct"]
        assert found[name]["certified"]["correct"] <= found[name]["worst_case"]["correct"]


def test_progress_only_rises_and_the_longest_attack_is_estimated_before_it_starts(
    watching: Watching, found: dict[str, Any]
) -> None:
    assert watching.fractions == sorted(watching.fractions)
    assert watching.fractions[-1] <= 1.0 + 1e-9
    estimated = [data for name, data in watching.events if name == "evaluation.estimated"]
    assert [data["model"] for data in estimated] == ["before", "after"]
    assert all(data["seconds"] >= 0 for data in estimated)


def test_an_evaluation_killed_at_any_batch_and_resumed_finds_the_same(
    networks: Networks, test_split: Examples, watching: Watching, found: dict[str, Any]
) -> None:
    for stop_at in range(1, watching.batches, max(1, watching.batches // 3)):
        kept: dict[str, Any] = {}
        with pytest.raises(Stop):
            evaluate(networks, test_split, SETTINGS, ledgers=kept, watch=Watching(stop_at))
        resumed = Watching()
        again = evaluate(networks, test_split, SETTINGS, ledgers=kept, watch=resumed)

        assert again == found
        assert resumed.batches == watching.batches - stop_at, "a finished batch was repeated"


def test_everything_recalled_says_the_same_and_tells_nothing_twice(
    networks: Networks,
    test_split: Examples,
    found: dict[str, Any],
    ledgers: dict[str, Any],
) -> None:
    watch = Watching()

    assert evaluate(networks, test_split, SETTINGS, ledgers=ledgers, watch=watch) == found
    assert watch.events == []


def test_one_network_alone_has_nothing_to_be_compared_with(
    network: NormalizedModel, test_split: Examples, found: dict[str, Any], ledgers: dict[str, Any]
) -> None:
    alone = evaluate(
        Networks(after=network),
        test_split,
        SETTINGS,
        ledgers={WAY: ledgers[WAY], "after": ledgers["before"]},
    )

    assert alone["after"] == found["before"]
    for section in ("before", "paired", "transfer", "drift"):
        assert alone[section] is None


def test_the_verdict_is_reliable_and_says_what_is_not_decided(found: dict[str, Any]) -> None:
    target = accuracy_target("robust_accuracy", 0.5, found["after"]["autoattack"])
    judged = verdict(found, [target], threat=SETTINGS.threat, size="4.0x smaller.")

    assert judged["reliability"] == "reliable"
    assert judged["reasons"] == []
    assert judged["label"] == "screening"
    assert judged["headline"].startswith("4.0x smaller.")
    assert {row["model"] for row in judged["invariants"]} == {"before", "after"}
    assert all(row["holds"] for row in judged["invariants"])


def test_one_flag_makes_the_verdict_unreliable_and_gives_its_reason(found: dict[str, Any]) -> None:
    flag = {"code": "zero_gradients", "detail": "5 of 24 images have no input gradient"}
    masked = found | {"before": found["before"] | {"flags": []}}
    masked |= {"after": found["after"] | {"flags": [flag]}}
    judged = verdict(masked, [], threat=SETTINGS.threat)

    assert (judged["reliability"], judged["targets"]) == ("unreliable", "none")
    assert len(judged["reasons"]) == 1
    assert "cannot be relied on" in judged["headline"]
