"""Phases `planning` and `admm` by themselves: limits, methods, the ramp, and resuming."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cstar_core.pipeline import Interrupted, State, Workbench
from cstar_core.pipeline.budgets import budgets_within, plan_within
from cstar_core.pipeline.phases import admm, planning
from cstar_core.pipeline.task import Limits
from cstar_core.ranks import Budget, LatencyTable, RankPlan, candidates
from tests.unit.core.pipeline.conftest import Memory

MakeBench = Callable[..., Workbench]


def state_of(bench: Workbench) -> State:
    """As the phases before planning would leave it."""
    return State(dense=dict(bench.uploaded))


def planned(bench: Workbench, folder: Path) -> tuple[State, list[dict[str, Any]]]:
    """The state after planning, and the candidates."""
    state = state_of(bench)
    planning.run(bench, state, Memory(folder / "planned.pt"))
    return state, state.findings["planning"]["candidates"]


# Limits ----------------------------------------------------------------------------------------


def test_every_limit_becomes_a_budget(make_bench: MakeBench, tmp_path: Path) -> None:
    inventory = make_bench(tmp_path / "job").inventory
    limits = Limits(ratio=2, max_params=9, max_macs=8, max_bytes=7, max_latency_ms=0.5)
    assert budgets_within(limits, inventory) == (
        Budget("parameters", inventory.parameters // 2),
        Budget("parameters", 9),
        Budget("macs", 8),
        Budget("bytes", 7),
        Budget("latency", 500_000),
    )


def test_plans_within_limits_carry_a_latency_when_that_is_limited(
    make_bench: MakeBench, tmp_path: Path
) -> None:
    bench = make_bench(tmp_path / "job")
    network = bench.dense_model(bench.uploaded).network
    limits = Limits(max_bytes=bench.inventory.dense("bytes") // 2)
    proposal = plan_within(network, bench.layers, limits)
    assert proposal.recommended.bytes_ratio >= 2
    assert proposal.recommended.latency_ms is None
    limits = replace(limits, max_latency_ms=1e6)
    proposal = plan_within(network, bench.layers, limits, latency_cache=tmp_path / "times")
    assert proposal.recommended.latency_ms is not None
    assert list((tmp_path / "times").iterdir())


def test_plans_without_limits_are_refused(make_bench: MakeBench, tmp_path: Path) -> None:
    bench = make_bench(tmp_path / "job")
    with pytest.raises(ValueError, match="at least one limit"):
        plan_within(bench.dense_model(bench.uploaded).network, bench.layers, Limits())


# Planning --------------------------------------------------------------------------------------


def test_candidates_by_every_strategy_are_scored(make_bench: MakeBench, tmp_path: Path) -> None:
    _, scored = planned(make_bench(tmp_path / "job"), tmp_path)
    names = {candidate["name"] for candidate in scored}
    assert {"uniform", "energy-raw", "energy-relative"} <= names
    assert all(0 <= candidate["held_out_robust_accuracy"] <= 1 for candidate in scored)


def test_layers_are_also_weighed_by_gradients_of_the_adversarial_loss(
    make_bench: MakeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, float]] = []

    def spied(*arguments: Any, weights: dict[str, float], **options: Any) -> list[RankPlan]:
        asked.append(weights)
        return candidates(*arguments, weights=weights, **options)

    monkeypatch.setattr(planning, "candidates", spied)
    bench = make_bench(tmp_path / "job")
    for _ in range(2):
        planned(bench, tmp_path)
    assert asked[0] == asked[1]
    assert asked[0].keys() == {layer.name for layer in bench.layers if not layer.is_stem}
    assert len(set(asked[0].values())) == len(asked[0])


def test_the_method_of_uniform_ranks_has_no_other_candidate(
    make_bench: MakeBench, tmp_path: Path
) -> None:
    _, scored = planned(make_bench(tmp_path / "job", method="uniform_ranks"), tmp_path)
    assert [candidate["name"] for candidate in scored] == ["uniform"]


def test_a_limit_on_latency_is_planned_by_times_that_survive_a_stop(
    make_bench: MakeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(tmp_path / "job", limits=Limits(ratio=3, max_latency_ms=1e6))
    memory = Memory(tmp_path / "checkpoint.pt")
    state = state_of(bench)
    planning.run(bench, state, memory)
    assert memory.saved == [("planning", False)]
    assert RankPlan.from_dict(state.plan).latency_ms is not None

    def timed_again(*_: object) -> LatencyTable:
        raise AssertionError("the times were measured again")

    monkeypatch.setattr(planning, "time_layers", timed_again)
    resumed = State.load(memory.checkpoint)
    planning.run(bench, resumed, Memory(tmp_path / "again.pt"))
    assert resumed.plan == state.plan


# The ramp --------------------------------------------------------------------------------------


def ramped(make_bench: MakeBench, folder: Path) -> Workbench:
    bench = make_bench(folder)
    profile = bench.task.profile
    return make_bench(
        folder,
        profile=replace(
            profile,
            admm=replace(profile.admm, epochs=4),
            admm_rho=replace(profile.admm_rho, epochs=4, ramp=0.5),
        ),
    )


def test_on_the_ramp_the_plan_shrinks_to_the_target_exactly(
    make_bench: MakeBench, tmp_path: Path
) -> None:
    bench, memory = ramped(make_bench, tmp_path / "job"), Memory(tmp_path / "checkpoint.pt")
    state, _ = planned(bench, tmp_path)
    target = RankPlan.from_dict(state.plan)
    admm.run(bench, state, memory)

    final = RankPlan.from_dict(state.plan)
    assert final.budgets == target.budgets == bench.budgets
    assert final.ratio >= 3
    selected = [data for name, data in memory.events if name == "ranks.reselected"]
    assert [data["tightness"] for data in selected] == [1.0, 1.0]
    assert state.findings["admm"]["mean_gap"] > 0


def test_the_ramp_starts_above_the_target(make_bench: MakeBench, tmp_path: Path) -> None:
    bench = ramped(make_bench, tmp_path / "job")
    state, _ = planned(bench, tmp_path)
    with pytest.raises(Interrupted):
        admm.run(bench, state, Memory(tmp_path / "checkpoint.pt", stop_at=1))
    eased = RankPlan.from_dict(State.load(tmp_path / "checkpoint.pt").plan)
    (budget,) = bench.budgets
    assert budget.limit < eased.parameters < eased.dense_parameters


@pytest.mark.parametrize("stop_at", [1, 4, 6])
def test_a_ramped_admm_interrupted_anywhere_ends_with_the_same_bits(
    make_bench: MakeBench, tmp_path: Path, stop_at: int
) -> None:
    bench = ramped(make_bench, tmp_path / "job")
    state, _ = planned(bench, tmp_path)
    state.save(tmp_path / "planned.pt")
    admm.run(bench, state, Memory(tmp_path / "undisturbed.pt"))

    first = Memory(tmp_path / "checkpoint.pt", stop_at=stop_at)
    with pytest.raises(Interrupted):
        admm.run(bench, State.load(tmp_path / "planned.pt"), first)
    resumed = State.load(first.checkpoint)
    admm.run(bench, resumed, Memory(tmp_path / "checkpoint.pt"))

    assert resumed.plan == state.plan
    for part in ("dense", "admm_targets"):
        before, after = getattr(state, part), getattr(resumed, part)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
