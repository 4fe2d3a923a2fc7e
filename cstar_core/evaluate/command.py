"""`python -m cstar_core.evaluate`: several networks, one after another, on the same images."""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cstar_core.errors import CstarError, InvalidModel
from cstar_core.evaluate import console
from cstar_core.evaluate.arguments import Arguments, parse
from cstar_core.evaluate.console import Progress, say
from cstar_core.evaluate.data import Evaluated, read_evaluated
from cstar_core.evaluate.judging import Case, judge, write_files
from cstar_core.evaluate.kept import Kept, OtherSettings
from cstar_core.evaluate.networks import Candidate, open_network
from cstar_core.evaluation.settings import EvaluationSettings

MET, MISSED, UNUSABLE, UNRELIABLE, DEFECT, STOPPED = 0, 1, 2, 3, 70, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate as the command line says; returns the exit status that `--help` explains."""
    asked = parse(arguments)
    try:
        return run(asked)
    except (CstarError, OtherSettings, OSError) as error:
        say(f"error: {error}")
        return UNUSABLE
    except KeyboardInterrupt:
        say("\nstopped; " + ("the same command goes on" if asked.output else "nothing is kept"))
        return STOPPED
    except Exception:
        traceback.print_exc()
        return DEFECT


def run(asked: Arguments) -> int:
    """Evaluate every network, write the reports, print the result; returns the exit status."""
    if asked.threads is not None:
        torch.set_num_threads(asked.threads)
    device = _device(asked.device)
    data = read_evaluated(asked.data)
    if data.whole:
        say(f"{asked.data.name} has no test split of its own: all {len(data):,} images are used")
    settings = asked.settings(len(data))
    baseline = None if asked.baseline is None else _open(asked.baseline, asked, data)
    candidates = [_open(path, asked, data) for path in asked.models]  # all, before any takes long
    kept = Kept.open(asked.output, _decisive(asked, data, settings), restart=asked.restart)
    work = _Work(asked, data, settings, baseline, kept, device)
    reports = [work.report(candidate) for candidate in candidates]
    print(_as_json(reports) if asked.json else _as_text(reports))
    return _status([report["verdict"] for _, report in reports])


@dataclass(frozen=True)
class _Work:
    """What all networks of one command share."""

    asked: Arguments
    data: Evaluated
    settings: EvaluationSettings
    baseline: Candidate | None
    kept: Kept
    device: torch.device

    def report(self, candidate: Candidate) -> tuple[str, dict[str, Any]]:
        """Judge one network and write its files; returns its name here and the report."""
        before = None if self.baseline is None else self.baseline.identity
        name = self.kept.folder_of(f"{candidate.identity}/{before}", candidate.name)
        ledgers = self.kept.case(candidate.identity, before)
        watch = Progress(name, self.kept)
        report = judge(self._case(candidate), device=self.device, ledgers=ledgers, watch=watch)
        self.kept.save()
        if self.asked.output is not None:
            write_files(self.asked.output / name, report)
            say(f"{name}: report in {self.asked.output / name}")
        return name, report

    def _case(self, candidate: Candidate) -> Case:
        asked, threat = self.asked, self.settings.threat
        robustness = {"norm": threat.norm, "epsilon": threat.epsilon}
        facts: dict[str, Any] = {
            "model": _named(candidate),
            "dataset": {"name": asked.data.name, "content_sha256": self.data.sha256},
            "targets": {
                "robustness": robustness | {"min_accuracy": asked.min_robust},
                "min_clean_accuracy": asked.min_clean,
            },
        }
        if self.baseline is not None:
            facts["baseline"] = _named(self.baseline)
        return Case(
            after=candidate,
            before=self.baseline,
            data=self.data,
            settings=self.settings,
            min_robust_accuracy=asked.min_robust,
            min_clean_accuracy=asked.min_clean,
            facts=facts,
        )


def _open(path: Path, asked: Arguments, data: Evaluated) -> Candidate:
    """Open a network; raises InvalidModel or InvalidDataset that names the file."""
    name = path.resolve().name if path.is_dir() else path.stem
    try:
        found = open_network(path, name=name, shape=data.shape, reading=asked.reading)
        data.check_classes(found.classes)
    except CstarError as error:
        raise InvalidModel(f"{path}: {error}", code=error.code) from error
    if asked.classes is not None and found.classes != asked.classes:
        raise InvalidModel(f"{path}: the network knows {found.classes} classes")
    return found


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise InvalidModel("--device cuda: torch sees no GPU here")
    return torch.device(name)


def _decisive(asked: Arguments, data: Evaluated, settings: EvaluationSettings) -> dict[str, Any]:
    """Everything the figures depend on but the networks, as JSON data."""
    facts = settings.to_json()
    threat, versions = facts.pop("threat"), facts.pop("versions")
    return {"data": data.sha256, **threat, **facts, "device": asked.device, **versions}


def _named(candidate: Candidate) -> dict[str, str]:
    return {"name": candidate.name, "weights_sha256": candidate.weights_sha256}


def _as_text(reports: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    return f"{console.table(reports)}\n\n{console.verdicts(reports)}"


def _as_json(reports: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    rows = [
        {"name": name, "verdict": report["verdict"], "result": report["result"]}
        for name, report in reports
    ]
    return json.dumps({"networks": rows}, indent=1, allow_nan=False)


def _status(verdicts: Sequence[Mapping[str, Any]]) -> int:
    if any(verdict["reliability"] == "unreliable" for verdict in verdicts):
        return UNRELIABLE
    fine = all(verdict["targets"] in ("met", "none") for verdict in verdicts)
    return MET if fine else MISSED
