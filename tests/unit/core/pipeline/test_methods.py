"""Every method a task may ask for: its phases, its share of training, its result."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cstar_core.errors import TargetInfeasible, TargetUnsupported
from cstar_core.export import load
from cstar_core.layers import count_macs, count_parameters
from cstar_core.pipeline import (
    METHODS,
    PROFILES,
    Interrupted,
    Profile,
    State,
    Workbench,
    phases_of,
    run,
)
from cstar_core.pipeline.artifact import write_artifact
from cstar_core.pipeline.run import overall
from cstar_core.pipeline.task import Limits
from tests.unit.core.pipeline.conftest import Memory

MakeBench = Callable[..., Workbench]

TAUGHT = "cstar with a teacher"


@dataclass
class Trained:
    """A run up to its evaluation."""

    bench: Workbench
    state: State
    memory: Memory

    @property
    def events(self) -> list[str]:
        """Names of what was told."""
        return [name for name, _ in self.memory.events]


@pytest.fixture(scope="module")
def bench_for(make_bench: MakeBench) -> Callable[[Path, str], Workbench]:
    """Return a function that lays out a workbench for a method, or for CSTAR with a teacher."""

    def lay_out(folder: Path, name: str) -> Workbench:
        if name != TAUGHT:
            return make_bench(folder, method=name)
        bench = make_bench(folder)
        bench.task = replace(bench.task, profile=distilling(bench.task.profile))
        return bench

    return lay_out


@pytest.fixture(scope="module")
def trained(
    bench_for: Callable[[Path, str], Workbench], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Trained]:
    """Return a function that runs a method, once for all tests."""

    @functools.cache
    def run_once(name: str) -> Trained:
        folder = tmp_path_factory.mktemp("run")
        bench, memory = bench_for(folder / "job", name), Memory(folder / "checkpoint.pt")
        return Trained(bench, train(bench, State(), memory), memory)

    return run_once


def train(bench: Workbench, state: State, memory: Memory) -> State:
    """Run all phases but the evaluation and the export."""
    run(bench, state, memory, phases=phases_of(bench.task)[:-2])
    return state


def distilling(profile: Profile) -> Profile:
    """The profile with a teacher in both phases that follow the dense network."""
    admm = replace(profile.admm, distillation=0.5)
    return replace(profile, admm=admm, finetune=replace(profile.finetune, distillation=0.5))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_meets_the_budget_with_the_network_it_leaves(
    trained: Callable[[str], Trained], name: str
) -> None:
    bench, state = trained(name).bench, trained(name).state
    plan, model = bench.plan(state), bench.compressed_model(state)

    assert plan.ratio >= 3.0
    assert plan.parameters == count_parameters(model.network)
    assert plan.macs == count_macs(model.network, bench.task.input_shape)
    assert plan.dense_parameters == bench.inventory.dense("parameters")
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(load(write_artifact(bench, state))(images), model(images), atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_for_all_epochs_of_the_profile(
    trained: Callable[[str], Trained], name: str
) -> None:
    bench, state = trained(name).bench, trained(name).state
    epochs = [len(rows) for key, rows in state.findings.items() if key.endswith("_epochs")]

    assert sum(epochs) == 4
    found = state.findings[bench.method.compressed_by]
    assert 0 <= found["held_out_robust_accuracy"] <= found["held_out_clean_accuracy"] <= 1


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_method_sees_as_many_examples(method: Any, profile: Profile) -> None:
    def examples(spent: Profile) -> int:
        runs = (spent.dense, spent.admm, spent.finetune)
        return sum(run.epochs * (run.examples_per_epoch or 50_000) for run in runs)

    assert examples(method.spend(profile)) == examples(profile)


@pytest.mark.parametrize("name", METHODS)
def test_progress_runs_from_0_to_1_over_the_phases(name: str) -> None:
    method = METHODS[name]
    ends = [overall(phase, part, method=name) for phase in method.phases for part in (0.0, 1.0)]

    assert ends == sorted(ends)
    assert (ends[0], ends[-1]) == (0.0, pytest.approx(1.0))
    assert method.phases[-2:] == ("evaluating", "exporting")


def test_the_phases_that_train_are_marked(make_bench: MakeBench, tmp_path: Path) -> None:
    bench = make_bench(tmp_path / "job", method="small_dense")

    assert [phase.name for phase in phases_of(bench.task) if phase.trains] == ["training"]


def test_fixed_ranks_stay_those_of_the_dense_network(trained: Callable[[str], Trained]) -> None:
    assert "ranks.reselected" in trained("cstar").events
    assert "ranks.reselected" not in trained("fixed_rank_admm").events


def test_uniform_ranks_scores_the_uniform_plan_alone(trained: Callable[[str], Trained]) -> None:
    state = trained("uniform_ranks").state

    assert [row["name"] for row in state.findings["planning"]["candidates"]] == ["uniform"]
    assert state.plan["strategy"] == "uniform"


def test_pruning_reports_both_candidates_and_keeps_the_better(
    trained: Callable[[str], Trained],
) -> None:
    state = trained("filter_pruning").state
    found = state.findings["channel_planning"]
    scores = {
        row["name"]: (row["held_out_robust_accuracy"], row["held_out_clean_accuracy"])
        for row in found["candidates"]
    }

    assert scores.keys() == {"uniform", "ranked"}
    assert scores[found["chosen"]] == max(scores.values())
    assert state.plan["name"] == found["chosen"]


def test_a_small_dense_network_owes_nothing_to_the_uploaded_weights(
    make_bench: MakeBench, trained: Callable[[str], Trained], tmp_path: Path
) -> None:
    bench = make_bench(tmp_path / "job", method="small_dense")
    bench.uploaded = {name: 0.5 * value for name, value in bench.uploaded.items()}
    other = train(bench, State(), Memory(tmp_path / "checkpoint.pt")).factorised

    for name, tensor in trained("small_dense").state.factorised.items():
        assert torch.equal(other[name], tensor)


@pytest.mark.parametrize(
    ("name", "stop_at"),
    [
        *(("cstar", stop_at) for stop_at in (2, 7, 12)),
        (TAUGHT, 8),
        *(("filter_pruning", stop_at) for stop_at in (6, 12)),
        *(("small_dense", stop_at) for stop_at in (2, 8)),
    ],
)
def test_a_run_interrupted_anywhere_ends_with_the_same_bits(
    bench_for: Callable[[Path, str], Workbench],
    trained: Callable[[str], Trained],
    tmp_path: Path,
    name: str,
    stop_at: int,
) -> None:
    checkpoint, whole = tmp_path / "checkpoint.pt", trained(name).state
    with pytest.raises(Interrupted):
        train(bench_for(tmp_path / "first", name), State(), Memory(checkpoint, stop_at=stop_at))
    resumed = train(
        bench_for(tmp_path / "second", name), State.load(checkpoint), Memory(checkpoint)
    )

    assert resumed.findings == whole.findings
    assert resumed.plan == whole.plan
    assert resumed.factorised.keys() == whole.factorised.keys()
    for key, tensor in whole.factorised.items():
        assert torch.equal(resumed.factorised[key], tensor), key


def test_the_teacher_is_the_robust_dense_network_before_admm(
    trained: Callable[[str], Trained], bench_for: Callable[[Path, str], Workbench], tmp_path: Path
) -> None:
    bench, state = bench_for(tmp_path / "job", TAUGHT), State()
    run(bench, state, Memory(tmp_path / "checkpoint.pt"), phases=phases_of(bench.task)[:2])
    taught = trained(TAUGHT)
    teacher = taught.bench.teacher(taught.state, taught.bench.profile.finetune)

    assert teacher is not None
    for name, tensor in teacher.network.state_dict().items():
        assert torch.equal(tensor, state.dense[name])
    assert not torch.equal(taught.state.dense["conv1.weight"], state.dense["conv1.weight"])


def test_no_teacher_is_kept_where_none_is_needed(trained: Callable[[str], Trained]) -> None:
    plain = trained("cstar")

    assert plain.state.teacher == {}
    assert plain.bench.teacher(plain.state, plain.bench.profile.finetune) is None


@pytest.mark.parametrize("name", METHODS)
def test_a_ratio_out_of_reach_is_refused_before_anything_is_trained(
    make_bench: MakeBench, tmp_path: Path, name: str
) -> None:
    bench = make_bench(tmp_path / "job", method=name, limits=Limits(ratio=5000.0))
    memory = Memory(tmp_path / "checkpoint.pt")

    with pytest.raises(TargetInfeasible) as caught:
        run(bench, State(), memory)
    assert caught.value.best > bench.inventory.dense("parameters") / 5000
    assert not memory.metrics


@pytest.mark.parametrize("name", ["filter_pruning", "small_dense"])
def test_dropping_channels_refuses_a_limit_on_latency_at_once(
    make_bench: MakeBench, tmp_path: Path, name: str
) -> None:
    bench = make_bench(tmp_path / "job", method=name, limits=Limits(max_latency_ms=1.0))
    memory = Memory(tmp_path / "checkpoint.pt")

    with pytest.raises(TargetUnsupported, match="latency"):
        run(bench, State(), memory)
    assert not memory.metrics


def test_the_rate_of_fine_tuning_follows_the_ratio_asked_for(
    make_bench: MakeBench, tmp_path: Path
) -> None:
    bench = make_bench(tmp_path / "job")
    profile = replace(bench.task.profile, finetune_rate_at=((3.0, 0.5), (4.0, 0.7)))
    dense = bench.inventory.dense("parameters")
    rates = []
    for limits in (Limits(ratio=2.0), Limits(ratio=3.0), Limits(max_params=dense // 5)):
        bench.task = replace(bench.task, profile=profile, limits=limits)
        rates.append(bench.profile.finetune.learning_rate)

    assert rates == [profile.finetune.learning_rate, 0.5, 0.7]


@pytest.mark.parametrize("name", ["one_shot_tucker", "filter_pruning", "small_dense"])
def test_a_baseline_leaves_a_whole_and_true_artifact(
    trained: Callable[[str], Trained], name: str
) -> None:
    bench, memory = trained(name).bench, trained(name).memory
    state = copy.deepcopy(trained(name).state)  # other tests want it as it was
    stored = sum(tensor.nbytes for tensor in state.factorised.values())
    bench.task = replace(bench.task, limits=replace(bench.task.limits, max_bytes=stored))
    run(bench, state, memory)
    output = bench.folder / "output"
    report = json.loads((output / "report.json").read_text())
    after = load(output)

    assert state.finished == list(METHODS[name].phases)
    assert report["method"]["name"] == name
    assert report["result"]["after"]["parameters"] == count_parameters(after)
    assert report["plan"] == json.loads((output / "plan.json").read_text())
    assert tuple(report["phases"]) == METHODS[name].phases[:-2]
    assert report["before_fine_tuning"]["phase"] == METHODS[name].compressed_by
    assert sum(len(rows) for rows in report["epochs"].values()) == 4
    outcomes = {row["metric"]: row for row in report["result"]["targets"]}
    assert sum(t.nbytes for t in after.state_dict().values()) == stored
    assert outcomes["max_bytes"]["achieved"] == stored
    assert (outcomes["ratio"]["outcome"], outcomes["max_bytes"]["outcome"]) == ("met", "met")
    done = [overall(phase, fraction, method=name) for phase, fraction in memory.progressed]
    assert done == sorted(done)
