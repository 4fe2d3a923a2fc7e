"""The phases as a whole: order, interruption at any point, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from cstar_core.pipeline import PHASES, Interrupted, State, Workbench, run
from cstar_core.pipeline.phases import exporting
from cstar_core.pipeline.phases.exporting import VerificationFailed
from cstar_core.pipeline.run import overall
from cstar_core.pipeline.task import Limits
from cstar_core.reporting import SCHEMA_PATH
from tests.unit.core.pipeline.conftest import Memory

MakeBench = Callable[..., Workbench]


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
        "report.html",
        "report.json",
        "report.md",
    }
    report = json.loads((output / "report.json").read_text())
    jsonschema.validate(report, json.loads(SCHEMA_PATH.read_text()))
    assert report["result"]["ratio"] >= 3.0
    assert any("quick" in note for note in report["notes"])
    done = [overall(phase, fraction) for phase, fraction in memory.progressed]
    assert done == sorted(done)


def test_a_run_interrupted_in_its_evaluation_ends_with_the_same_figures(
    make_bench: MakeBench, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    whole = State()
    run(make_bench(tmp_path / "whole"), whole, Memory(checkpoint), phases=PHASES[:-1])
    with pytest.raises(Interrupted):
        run(make_bench(tmp_path / "parts"), State(), Memory(checkpoint, stop_at=20))
    resumed = State.load(checkpoint)
    assert resumed.verdicts.keys() < whole.verdicts.keys()
    run(make_bench(tmp_path / "parts"), resumed, Memory(checkpoint), phases=PHASES[:-1])

    assert resumed.findings == whole.findings
    assert resumed.verdicts == whole.verdicts


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
