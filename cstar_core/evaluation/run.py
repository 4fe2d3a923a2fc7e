"""A whole evaluation: one network, or two on the same examples, piece by piece."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from cstar_core.evaluation.assessment import Assessment, Subject, assess
from cstar_core.evaluation.attacks.fingerprint import examples_sha256
from cstar_core.evaluation.comparison import drifted, paired, transferred
from cstar_core.evaluation.examples import Examples
from cstar_core.evaluation.settings import EvaluationSettings
from cstar_core.evaluation.spectra import screen
from cstar_core.evaluation.watch import Meter, Unwatched, Watch

BEFORE, AFTER = "before", "after"
WAY = "measured_in_this_way"
_TRANSFER_SHARE = 0.02  # of the time for two networks


@dataclass(frozen=True)
class Networks:
    """What is evaluated: `after`, and `before` it another network to compare it with, or None.

    Both take images in [0, 1] on the device of the examples and are in eval mode. `uploaded` is
    the one whose weights are screened, by its name.
    """

    after: nn.Module
    before: nn.Module | None = None
    uploaded: str = AFTER

    def named(self) -> dict[str, nn.Module]:
        """The networks there are, by their names in the report, in order of evaluation."""
        before = {} if self.before is None else {BEFORE: self.before}
        return before | {AFTER: self.after}


def evaluate(
    networks: Networks,
    test: Examples,
    settings: EvaluationSettings,
    *,
    class_names: tuple[str, ...] | None = None,
    ledgers: MutableMapping[str, Any] | None = None,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Evaluate on the test split `test`; returns section `evaluation` of a report.

    Whatever is finished lands in `ledgers`, plain data that a checkpoint can hold: with it, the
    same call goes on where it was interrupted and returns the same. `watch` hears of progress.
    """
    ledgers = {} if ledgers is None else ledgers
    _begin_anew_if_other(ledgers, settings)
    watch = Unwatched() if watch is None else watch
    subjects = {
        name: Subject(name, model, test, settings, class_names)
        for name, model in networks.named().items()
    }
    assessed = _assess(subjects, ledgers, watch)
    after = subjects[AFTER]
    findings: dict[str, Any] = {BEFORE: None, "paired": None, "drift": None, "transfer": None}
    findings |= {name: assessment.to_json() for name, assessment in assessed.items()}
    if BEFORE in assessed:
        ledger = ledgers.setdefault("transfer", {})
        meter = Meter(watch, start=1 - _TRANSFER_SHARE, share=_TRANSFER_SHARE)
        moved = transferred(subjects[BEFORE].model, after, assessed[AFTER], ledger, meter)
        findings["transfer"] = moved.described
        findings[AFTER]["flags"] += [flag.to_json() for flag in moved.flags]
        findings["paired"] = paired(assessed[BEFORE], assessed[AFTER])
        findings["drift"] = drifted(after, assessed[BEFORE], assessed[AFTER])
    findings["spectra"] = screen(networks.named()[networks.uploaded]).to_json()
    sha256 = examples_sha256(after.attacked.images, after.attacked.labels)
    findings["attacked"] = settings.replay_facts(len(test)) | {"sha256": sha256}
    return findings


def _begin_anew_if_other(ledgers: MutableMapping[str, Any], settings: EvaluationSettings) -> None:
    """Forget what was measured in another way, such as by an older version of a library."""
    way = settings.to_json()
    if ledgers.setdefault(WAY, way) != way:
        ledgers.clear()
        ledgers[WAY] = way


def _assess(
    subjects: Mapping[str, Subject], ledgers: MutableMapping[str, Any], watch: Watch
) -> dict[str, Assessment]:
    """Assess one network after the other."""
    share = (1 if len(subjects) == 1 else 1 - _TRANSFER_SHARE) / len(subjects)
    return {
        name: assess(
            subject, ledgers.setdefault(name, {}), watch, start=position * share, share=share
        )
        for position, (name, subject) in enumerate(subjects.items())
    }
