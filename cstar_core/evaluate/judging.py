"""One network judged as it is, alone or beside a baseline: from the case to its report's files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from cstar_core.environment import environment
from cstar_core.evaluate.data import Evaluated
from cstar_core.evaluate.networks import Candidate
from cstar_core.evaluation.report import common_sections
from cstar_core.evaluation.run import AFTER, BEFORE, Networks, evaluate
from cstar_core.evaluation.settings import EvaluationSettings
from cstar_core.evaluation.targets import Target, accuracy_target
from cstar_core.evaluation.watch import Watch
from cstar_core.export import manifest
from cstar_core.export.timing import compared_latency, latency_alone
from cstar_core.reporting import write_report

LATENCY = "latency"


@dataclass(frozen=True)
class Case:
    """What is judged, on which images and how; `before` is a baseline to compare with, or None.

    A minimum of None asks for nothing. `facts` are passed on to report and manifest.
    """

    after: Candidate
    before: Candidate | None
    data: Evaluated
    settings: EvaluationSettings
    min_robust_accuracy: float | None = None
    min_clean_accuracy: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def named(self) -> dict[str, Candidate]:
        """The networks there are, by their names in a report."""
        before = {} if self.before is None else {BEFORE: self.before}
        return before | {AFTER: self.after}


def judge(
    case: Case,
    *,
    device: torch.device,
    ledgers: MutableMapping[str, Any],
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Return the whole report, JSON data.

    What is finished lands in `ledgers`, plain data: the same call with them goes on from there.
    """
    models = {name: network.model.to(device) for name, network in case.named().items()}
    found = evaluate(
        Networks(after=models[AFTER], before=models.get(BEFORE)),
        case.data.examples(device),
        case.settings,
        class_names=case.data.class_names,
        ledgers=ledgers,
        watch=watch,
    )
    if LATENCY not in ledgers:
        ledgers[LATENCY] = latency_of(case, device)
    return _report(case, found, ledgers[LATENCY])


def write_files(folder: Path, report: Mapping[str, Any]) -> None:
    """Write the report as JSON, HTML and Markdown, and the manifest of the three."""
    folder.mkdir(parents=True, exist_ok=True)
    write_report(folder, report)
    names = ("job", "model", "baseline", "dataset", "targets", "seed", "split_sha256")
    facts = {name: report[name] for name in names if name in report}
    manifest(folder, facts | {"environment": environment(torch.get_num_threads())})


def _report(case: Case, found: Mapping[str, Any], latency: Mapping[str, Any]) -> dict[str, Any]:
    content = common_sections(
        "evaluation",
        evaluation=found,
        settings=case.settings,
        targets=list(_targets(case, found)),
        footprints={name: network.footprint for name, network in case.named().items()},
        latency=latency,
        split_sha256=case.data.sha256,
    )
    return content | {**case.facts, "method": None, "plan": None, "profile": None, "notes": []}


def _targets(case: Case, found: Mapping[str, Any]) -> Iterator[Target]:
    after = found[AFTER]
    if case.min_robust_accuracy is not None:
        yield accuracy_target("robust_accuracy", case.min_robust_accuracy, after["worst_case"])
    if case.min_clean_accuracy is not None:
        yield accuracy_target("clean_accuracy", case.min_clean_accuracy, after["clean"])


def latency_of(case: Case, device: torch.device) -> dict[str, Any]:
    """Section `latency` of a report: beside a baseline in every runtime there is, or alone."""
    shape = case.data.shape
    if case.before is None:
        return latency_alone(case.after.model, shape, device=device)
    return compared_latency(
        {name: each.model for name, each in case.named().items()},
        shape,
        device=device,
        smaller_by=case.before.footprint.parameters / case.after.footprint.parameters,
    )
