"""The phases as a whole: order, interruption at any point, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cstar_core.errors import TargetInfeasible
from cstar_core.pipeline import PHASES, Interrupted, State, Workbench, run
from cstar_core.pipeline.phases import exporting
from cstar_core.pipeline.phases.exporting import VerificationFailed
from cstar_core.pipeline.run import overall
from cstar_core.pipeline.task import Limits
from tests.unit.core.pipeline.conftest import Memory

MakeBench = Callable[..., Workbench]


@pytest.fixture(scope="module")
def weights_of_an_undisturbed_run() -> dict[str, bytes]:
    return {}


def weights(bench: Workbench) -> bytes:
    return (bench.folder / "output" / "model.safetensors").read_bytes()


def test_a_run_goes_through_all_phases_and_leaves_a_whole_artifact(
    make_bench: MakeBench, tmp_path: Path
) -> None:
    bench, memory = make_bench(tmp_path / "job"), Memory(tmp_path / "checkpoint.pt")
    state = State()
    run(bench, state, memory)

    assert state.finished == [phase.name for phase in PHASES]
    output = bench.folder / "output"
    files = {path.name for path in output.iterdir()}
    assert files == {
        "architecture.json",
        "loader.py",
        "manifest.json",
        "model.onnx",
        "model.safetensors",
        "plan.json",
        "report.json",
    }
    report = json.loads((output / "report.json").read_text())
    assert report["result"]["ratio"] >= 3.0
    assert any("quick" in note for note in report["notes"])
    done = [overall(phase, fraction) for phase, fraction in memory.progressed]
    assert done == sorted(done)


@pytest.mark.parametrize("stop_at", [1, 2, 4, 7, 9, 12])
def test_a_run_interrupted_anywhere_ends_with_the_same_bits(
    make_bench: MakeBench,
    tmp_path: Path,
    weights_of_an_undisturbed_run: dict[str, bytes],
    stop_at: int,
) -> None:
    if not weights_of_an_undisturbed_run:
        bench = make_bench(tmp_path / "undisturbed")
        run(bench, State(), Memory(tmp_path / "undisturbed.pt"))
        weights_of_an_undisturbed_run["bytes"] = weights(bench)
    checkpoint = tmp_path / "checkpoint.pt"
    with pytest.raises(Interrupted):
        run(make_bench(tmp_path / "first"), State(), Memory(checkpoint, stop_at=stop_at))
    bench = make_bench(tmp_path / "second")
    run(bench, State.load(checkpoint), Memory(checkpoint))

    assert weights(bench) == weights_of_an_undisturbed_run["bytes"]


def test_a_ratio_out_of_reach_is_refused_with_the_best_that_can_be_met(
    make_bench: MakeBench, tmp_path: Path
) -> None:
    bench = make_bench(tmp_path / "job", limits=Limits(ratio=5000.0))

    with pytest.raises(TargetInfeasible) as caught:
        run(bench, State(), Memory(tmp_path / "checkpoint.pt"))
    assert caught.value.best > bench.inventory.dense("parameters") / 5000


def test_a_budget_on_macs_holds_too(make_bench: MakeBench, tmp_path: Path) -> None:
    bench = make_bench(tmp_path / "job")
    limit = bench.inventory.dense("macs") // 2
    bench = make_bench(tmp_path / "job", limits=Limits(ratio=2.0, max_macs=limit))
    run(bench, State(), Memory(tmp_path / "checkpoint.pt"))

    result = json.loads((bench.folder / "output" / "report.json").read_text())["result"]
    assert result["after"]["macs"] <= limit
    assert {row["metric"]: row["outcome"] for row in result["targets"]} == {
        "ratio": "met",
        "max_macs": "met",
        "robust_accuracy": "missed",
    }


def test_files_that_do_not_score_as_evaluated_fail_the_run(
    make_bench: MakeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = exporting.export_onnx

    def tampering(module: object, shape: object, path: Path) -> None:
        honest(module, shape, path)  # type: ignore[arg-type]
        weights = path.parent / "model.safetensors"
        data = bytearray(weights.read_bytes())
        data[-2000:] = bytes(2000)
        weights.write_bytes(data)

    monkeypatch.setattr(exporting, "export_onnx", tampering)
    with pytest.raises(VerificationFailed):
        run(make_bench(tmp_path / "job"), State(), Memory(tmp_path / "checkpoint.pt"))
