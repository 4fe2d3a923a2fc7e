"""The command as its user meets it: tables, files, exit statuses, and going on after SIGKILL."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch

from cstar_core.evaluate import command
from cstar_core.evaluate.command import MET, MISSED, STOPPED, UNRELIABLE, UNUSABLE, main
from cstar_core.evaluate.kept import FILE
from cstar_core.reporting import SCHEMA_PATH
from tests.unit.core.evaluate.conftest import CHECKPOINT, FEW, NORMALISED, Pair

Capture = pytest.CaptureFixture[str]


def few(data: Path, *arguments: str) -> list[str]:
    """The arguments of an evaluation of seconds."""
    return [str(CHECKPOINT), "--data", str(data), *NORMALISED, *FEW, *arguments]


@dataclass(frozen=True)
class Ended:
    """How a command ended, what it said, and the folder it wrote to."""

    status: int
    out: str
    err: str
    folder: Path

    @property
    def report(self) -> Any:
        return json.loads((self.folder / "after" / "report.json").read_text())


def comparing(pair: Pair, folder: Path, *arguments: str) -> list[str]:
    """The arguments that compare two small networks."""
    subjects = [str(pair.after), "--baseline", str(pair.before), "--data", str(pair.data)]
    return [*subjects, *pair.normalised, *FEW, "--output", str(folder), *arguments]


@pytest.fixture(scope="module")
def compared(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A network that was compared with another one."""
    folder = tmp_path_factory.mktemp("output")
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        status = main(comparing(pair, folder, "--min-clean", "0.5"))
    return Ended(status, out.getvalue(), err.getvalue(), folder)


def test_a_network_is_evaluated_with_a_table_and_progress(compared: Ended) -> None:
    header, row, *_ = compared.out.splitlines()
    assert header.split()[:2] == ["network", "parameters"]
    assert row.split()[0] == "after"
    assert "clean_accuracy asked 0.5, got 1: met" in compared.out
    assert "all 300 images are used" in compared.err
    assert "autoattack on 2 images: about" in compared.err


def test_the_exit_status_is_that_of_the_report(compared: Ended) -> None:
    verdict = compared.report["verdict"]
    assert verdict["targets"] == "met"
    assert compared.status == (UNRELIABLE if verdict["flags"] else MET)


def test_every_network_gets_a_report_with_its_manifest(compared: Ended) -> None:
    report, folder = compared.report, compared.folder / "after"
    names = {path.name for path in folder.iterdir()}
    assert names == {"report.json", "report.html", "report.md", "manifest.json"}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["files"]) == names - {"manifest.json"}
    jsonschema.validate(report, json.loads(SCHEMA_PATH.read_text()))
    assert report["kind"] == "evaluation"
    assert report["evaluation"]["after"]["clean"]["n"] == 300
    assert report["evaluation"]["attacked"]["n"] == 8
    assert report["model"]["name"] == "after"


def test_a_baseline_is_before_and_both_are_compared_in_pairs(compared: Ended) -> None:
    report = compared.report
    before, after = report["result"]["before"], report["result"]["after"]
    gained = after["clean_accuracy"]["value"] - before["clean_accuracy"]["value"]
    assert gained > 0
    assert report["evaluation"]["paired"]["clean"]["difference"] == pytest.approx(gained)
    assert report["evaluation"]["transfer"]["n"] == 8
    assert report["baseline"]["weights_sha256"] != report["model"]["weights_sha256"]
    assert {"before", "after"} == set(report["latency"]["runtimes"]["onnxruntime"])


def test_a_target_may_change_without_measuring_again_and_json_says_all(
    pair: Pair, compared: Ended, capsys: Capture
) -> None:
    asked = comparing(pair, compared.folder, "--min-robust", "0.9", "--json")
    assert main(asked) in (MISSED, UNRELIABLE)
    said = capsys.readouterr()
    (network,) = json.loads(said.out)["networks"]

    assert network["verdict"]["targets"] in ("missed", "undecided")
    assert network["result"]["after"]["robust_accuracy"]["pgd-20"]["n"] == 8
    assert "autoattack" not in said.err


def test_a_folder_of_another_evaluation_is_not_mixed_with(
    pair: Pair, compared: Ended, capsys: Capture
) -> None:
    assert main(comparing(pair, compared.folder, "--seed", "1")) == UNUSABLE
    assert "seed 0, now 1" in capsys.readouterr().err


def test_a_network_alone_is_timed_alone(pair: Pair, capsys: Capture) -> None:
    subject = [str(pair.after), "--data", str(pair.data), *pair.normalised, *FEW]
    main([*subject, "--json"])
    (network,) = json.loads(capsys.readouterr().out)["networks"]
    assert network["result"]["before"] is None
    assert network["result"]["after"]["latency_ms"]["batch 1"]["median_ms"] > 0


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [
        ([("none", "reliable")], MET),
        ([("met", "reliable"), ("undecided", "reliable")], MISSED),
        ([("missed", "reliable")], MISSED),
        ([("met", "reliable"), ("missed", "unreliable")], UNRELIABLE),
    ],
)
def test_the_worst_network_decides_the_exit_status(
    verdicts: list[tuple[str, str]], status: int
) -> None:
    found = [{"targets": targets, "reliability": trust} for targets, trust in verdicts]
    assert command._status(found) == status


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "cuda"], "no GPU"),
        (["--classes", "11"], "knows 10 classes"),
        (["--examples", "21"], "--examples 21"),
        (["--baseline", "nothing.pth"], "nothing.pth: there is no"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_status_2(
    few_digits: Path, capsys: Capture, arguments: list[str], words: str
) -> None:
    assert main(few(few_digits, *arguments)) == UNUSABLE
    said = capsys.readouterr()
    (line,) = [line for line in said.err.splitlines() if line.startswith("error")]
    assert words in line
    assert "Traceback" not in said.err
    assert said.out == ""


def test_an_upload_that_is_code_is_refused_in_one_line(
    few_digits: Path, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")
    assert main([str(path), *few(few_digits)[1:]]) == UNUSABLE
    assert f"error: {path}: " in capsys.readouterr().err


def test_a_data_set_that_is_none_is_refused_in_one_line(tmp_path: Path, capsys: Capture) -> None:
    np.savez(tmp_path / "bad.npz", pictures=np.zeros(3))
    assert main(few(tmp_path / "bad.npz")) == UNUSABLE
    assert "images and labels" in capsys.readouterr().err


def test_labels_outside_the_classes_are_refused(
    few_digits: Path, tmp_path: Path, capsys: Capture
) -> None:
    with np.load(few_digits) as arrays:
        np.savez(tmp_path / "more.npz", images=arrays["images"], labels=arrays["labels"] + 1)
    assert main(few(tmp_path / "more.npz")) == UNUSABLE
    assert "label 10" in capsys.readouterr().err


def test_control_c_says_how_to_go_on(
    few_digits: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "judge", stopped)
    assert main(few(few_digits, "--output", str(tmp_path))) == STOPPED
    assert "the same command goes on" in capsys.readouterr().err


def test_an_error_of_ours_is_no_verdict(
    few_digits: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise AssertionError("a defect")

    monkeypatch.setattr(command, "judge", broken)
    assert main(few(few_digits)) == command.DEFECT
    assert "Traceback" in capsys.readouterr().err


def longer(pair: Pair, folder: Path) -> list[str]:
    """The arguments of an evaluation that goes on for a while after PGD."""
    subject = [str(pair.after), "--data", str(pair.data), *pair.normalised, "--output", str(folder)]
    counts = ["--examples", "300", "--autoattack-examples", "8", "--probe-examples", "16"]
    return [*subject, *counts, "--epsilon", "0.4", "--threads", "1"]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Give torch its threads back after a command that was told to use one."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def without_times(value: Any) -> Any:
    """A report without what a clock has measured."""
    if isinstance(value, dict):
        timed = ("latency", "latency_ms")
        return {key: without_times(item) for key, item in value.items() if key not in timed}
    return [without_times(item) for item in value] if isinstance(value, list) else value


KILLED_AFTER_PGD = """
import os, signal, sys
from cstar_core.evaluate.command import main
write = sys.stderr.write
def write_and_die(text):
    write(text)
    if "pgd-20 0" in text: os.kill(os.getpid(), signal.SIGKILL)
sys.stderr.write = write_and_die
main(sys.argv[1:])
"""


@pytest.mark.usefixtures("one_thread")
def test_a_killed_command_goes_on_and_ends_as_an_undisturbed_one(
    pair: Pair, tmp_path: Path, capsys: Capture
) -> None:
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    call = [sys.executable, "-c", KILLED_AFTER_PGD, *longer(pair, killed)]
    first = subprocess.run(call, capture_output=True, text=True, check=False)
    assert first.returncode == -signal.SIGKILL, first.stderr
    (ledgers,) = json.loads((killed / FILE).read_text())["ledgers"].values()
    assert len(ledgers["after"]["pgd"]) == 3  # batches of 128
    assert not (killed / "after").exists()

    reports = []
    for folder, told in ((killed, 0), (undisturbed, 1)):
        assert main(longer(pair, folder)) in (MET, UNRELIABLE)
        assert capsys.readouterr().err.count("pgd-20 0") == told  # what is kept is not repeated
        report = json.loads((folder / "after" / "report.json").read_text())
        reports.append(json.dumps(without_times(report)))
    assert reports[0] == reports[1]
