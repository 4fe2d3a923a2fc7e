"""Recognising, fitting and loading weights."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cstar_core import architectures
from cstar_core.architectures import Architecture, registry
from cstar_core.architectures.matching import shapes_of
from cstar_core.errors import InvalidModel

NAMES = architectures.names()


def shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    return shapes_of(registry.skeleton(architecture).state_dict())


def complete(name: str, **given: int | bool | str) -> Architecture:
    return Architecture(name, registry.complete(registry.find(name), given))


@pytest.mark.parametrize("name", NAMES)
def test_default_network_is_recognised(name: str) -> None:
    assert architectures.recognise(shapes(Architecture(name))) == complete(name)


@pytest.mark.parametrize("name", NAMES)
def test_network_saved_without_batch_counters_is_recognised(name: str) -> None:
    found = {key: shape for key, shape in shapes(Architecture(name)).items() if "num_b" not in key}
    assert architectures.recognise(found) == complete(name)


@settings(deadline=None, max_examples=8)
@given(
    name=st.sampled_from(NAMES),
    width=st.integers(1, 80),
    in_channels=st.sampled_from([1, 3, 4]),
    num_classes=st.integers(2, 1000),
    data=st.data(),
)
def test_arguments_are_inferred_from_the_shapes(
    name: str, width: int, in_channels: int, num_classes: int, data: st.DataObject
) -> None:
    given: dict[str, int | bool] = {
        "width": width,
        "in_channels": in_channels,
        "num_classes": num_classes,
    }
    others: dict[str, st.SearchStrategy[int | bool]] = {
        "bias": st.booleans(),
        "final_norm": st.booleans(),
        "hidden": st.integers(1, 256),
        "blocks": st.integers(1, 6),
        "widen": st.integers(1, 12),
    }
    for argument in others.keys() & registry.find(name).arguments.keys():
        given[argument] = data.draw(others[argument])
    architecture = complete(name, **given)
    assert architectures.recognise(shapes(architecture)) == architecture
    assert architectures.fit(name, {}, shapes(architecture)) == architecture


def test_unknown_weights_are_refused_with_the_closest_candidate() -> None:
    found = shapes(Architecture("resnet20_cifar"))
    found["linear.extra"] = found.pop("linear.bias")
    with pytest.raises(InvalidModel, match="closest is resnet20_cifar") as refusal:
        architectures.recognise(found)
    assert refusal.value.code == "architecture_not_recognised"
    assert "1 missing: linear.bias" in str(refusal.value)
    assert "1 unexpected: linear.extra" in str(refusal.value)
    assert all(name in str(refusal.value) for name in NAMES)


def test_no_weights_at_all_are_not_recognised() -> None:
    with pytest.raises(InvalidModel) as refusal:
        architectures.recognise({})
    assert refusal.value.code == "architecture_not_recognised"


def test_shapes_out_of_every_range_are_not_recognised() -> None:
    with pytest.raises(InvalidModel) as refusal:
        architectures.recognise({"conv1.weight": (2**40, 0, 3, 3), "linear.weight": ()})
    assert refusal.value.code == "architecture_not_recognised"


def test_weights_that_fit_two_entries_are_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    twin = dataclasses.replace(registry.find("resnet8_cifar"), name="twin")
    monkeypatch.setitem(registry.ENTRIES, "twin", twin)
    with pytest.raises(InvalidModel, match="resnet8_cifar, twin") as refusal:
        architectures.recognise(shapes(Architecture("resnet8_cifar")))
    assert refusal.value.code == "architecture_ambiguous"


def test_misfit_lists_keys_of_each_kind_with_counts() -> None:
    found = shapes(Architecture("resnet20_cifar"))
    found |= {"conv1.weight": (16, 3, 5, 5), "aux.weight": (1,)}
    del found["bn1.bias"]
    with pytest.raises(InvalidModel) as refusal:
        architectures.fit("resnet20_cifar", {}, found)
    assert refusal.value.code == "weights_do_not_fit"
    message = str(refusal.value)
    assert "1 missing: bn1.bias" in message
    assert "1 unexpected: aux.weight" in message
    assert "1 of another shape: conv1.weight (16, 3, 5, 5) instead of (16, 3, 3, 3)" in message


def test_misfit_lists_at_most_eight_keys_of_a_kind() -> None:
    with pytest.raises(InvalidModel, match="and 29 more") as refusal:
        architectures.fit("resnet8_cifar", {}, {})
    assert refusal.value.code == "weights_do_not_fit"


def test_given_arguments_win_over_what_the_weights_say() -> None:
    with pytest.raises(InvalidModel, match="num_classes=100") as refusal:
        architectures.fit("resnet8_cifar", {"num_classes": 100}, shapes(complete("resnet8_cifar")))
    assert refusal.value.code == "weights_do_not_fit"


def test_unknown_name_is_refused_with_the_known_ones() -> None:
    for refused in (
        lambda: architectures.build(Architecture("resnet21")),
        lambda: architectures.fit("resnet21", {}, {}),
        lambda: architectures.stem_name(Architecture("resnet21")),
    ):
        with pytest.raises(InvalidModel, match="resnet20_cifar") as refusal:
            refused()
        assert refusal.value.code == "unknown_architecture"


@pytest.mark.parametrize(
    "arguments",
    [{"depth": 3}, {"width": 0}, {"width": 10**9}, {"width": "16"}, {"width": True}],
    ids=["unknown", "zero", "huge", "string", "boolean"],
)
def test_bad_arguments_are_refused_with_the_accepted_ones(
    arguments: dict[str, int | bool | str],
) -> None:
    with pytest.raises(InvalidModel, match=r"width \(int 1..512, default 16\)") as refusal:
        architectures.build(Architecture("resnet20_cifar", arguments))
    assert refusal.value.code == "invalid_arguments"


def test_fit_refuses_bad_arguments_before_it_compares() -> None:
    with pytest.raises(InvalidModel) as refusal:
        architectures.fit("vgg16_bn_cifar", {"bias": 1}, {})
    assert refusal.value.code == "invalid_arguments"


def small_state(*, seed: int = 3) -> dict[str, Tensor]:
    return architectures.build(complete("resnet8_cifar", width=4), seed=seed).state_dict()


def test_loaded_network_has_the_weights_and_is_in_eval_mode() -> None:
    state = small_state()
    network = architectures.load(complete("resnet8_cifar", width=4), state)
    assert not network.training
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_loaded_network_keeps_its_own_copy() -> None:
    state = small_state()
    network = architectures.load(complete("resnet8_cifar", width=4), state)
    before = state["conv1.weight"].clone()
    with torch.no_grad():
        next(network.parameters()).zero_()
    assert torch.equal(state["conv1.weight"], before)


def test_missing_batch_counters_load_as_zero() -> None:
    state = {key: value for key, value in small_state().items() if "num_b" not in key}
    network = architectures.load(complete("resnet8_cifar", width=4), state)
    assert network.state_dict()["bn1.num_batches_tracked"].item() == 0


def test_loading_is_strict() -> None:
    state = small_state()
    del state["linear.bias"]
    with pytest.raises(InvalidModel) as refusal:
        architectures.load(complete("resnet8_cifar", width=4), state)
    assert refusal.value.code == "weights_do_not_fit"


def test_architecture_survives_json() -> None:
    architecture = complete("vgg16_bn_cifar", bias=True)
    assert Architecture.from_json(architecture.to_json()) == architecture
    assert Architecture.from_json({"name": "resnet8_cifar"}) == Architecture("resnet8_cifar")


@pytest.mark.parametrize(
    "value",
    [None, "resnet8_cifar", {}, {"name": 3}, {"name": "x", "arguments": {"width": [1]}}],
    ids=["null", "string", "empty", "number", "nested"],
)
def test_malformed_architecture_is_refused(value: object) -> None:
    with pytest.raises(InvalidModel) as refusal:
        Architecture.from_json(value)
    assert refusal.value.code == "invalid_arguments"
