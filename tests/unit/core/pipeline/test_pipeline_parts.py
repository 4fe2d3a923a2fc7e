"""State, profiles and the arithmetic of progress and targets."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cstar_core.pipeline import PROFILES, State
from cstar_core.pipeline.profiles import adapt


def test_a_state_comes_back_from_its_file(tmp_path: Path) -> None:
    state = State(
        finished=["checking"],
        dense={"conv.weight": torch.arange(6.0)},
        plan={"layers": [{"ranks": [2, 3]}]},
        findings={"checking": {"robust": False}},
    )
    state.save(tmp_path / "state.pt")
    loaded = State.load(tmp_path / "state.pt")

    assert torch.equal(loaded.dense.pop("conv.weight"), state.dense.pop("conv.weight"))
    assert loaded == state


def test_a_state_of_another_format_is_refused(tmp_path: Path) -> None:
    torch.save({"format": 99}, tmp_path / "state.pt")

    with pytest.raises(ValueError, match="99"):
        State.load(tmp_path / "state.pt")


def test_saving_leaves_no_temporary_file(tmp_path: Path) -> None:
    State().save(tmp_path / "state.pt")

    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_a_profile_is_json_data_with_a_note(name: str) -> None:
    described = PROFILES[name].to_json()

    assert described["name"] == name
    assert described["note"]
    assert described["admm"]["rho"]["epochs"] == described["admm"]["epochs"]


def test_quick_says_that_it_is_not_a_result() -> None:
    assert "not a result" in PROFILES["quick"].note


def test_options_replace_only_what_they_name() -> None:
    profile = adapt(PROFILES["paper"], admm_epochs=3, augmentation="none")

    assert (profile.admm.epochs, profile.admm_rho.epochs) == (3, 3)
    assert profile.finetune.epochs == PROFILES["paper"].finetune.epochs
    assert {profile.dense.augmentation, profile.finetune.augmentation} == {"none"}
    assert profile.selection == PROFILES["paper"].selection


def test_a_state_from_before_a_field_was_added_is_read(tmp_path: Path) -> None:
    State(finished=["checking"]).save(tmp_path / "state.pt")
    content = torch.load(tmp_path / "state.pt", weights_only=True)
    del content["teacher"]
    torch.save(content, tmp_path / "state.pt")

    assert State.load(tmp_path / "state.pt") == State(finished=["checking"])
