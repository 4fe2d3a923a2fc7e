"""Phase `evaluating`: clean, PGD-20 and AutoAttack, before and after, on the same test examples.

"After" is the network as the exported files give it back through the shipped loader, not the one
in memory (evaluation.md, rule 11).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from cstar_core.evaluation.autoattack import autoattack_correct
from cstar_core.evaluation.batches import BatchDone, Completed
from cstar_core.evaluation.reliability import model_flags, square_flags
from cstar_core.evaluation.robustness import PgdSettings, clean_correct, pgd_correct
from cstar_core.evaluation.statistics import Accuracy, PairedComparison
from cstar_core.export import load
from cstar_core.pipeline.artifact import write_artifact
from cstar_core.pipeline.observer import Interrupted, Observer
from cstar_core.pipeline.state import State
from cstar_core.pipeline.workbench import Workbench
from cstar_core.training.randomness import derive_seed

PHASE = "evaluating"
PGD = PgdSettings(steps=20)
BATCH = 128
PIECES = ("clean", "pgd", "autoattack")
SHARES = {"clean": 0.05, "pgd": 0.15, "autoattack": 0.3}  # of the phase, for each network


def run(workbench: Workbench, state: State, observer: Observer) -> None:
    """Evaluate the uploaded and the exported network; every finished batch is kept."""
    models = {
        "before": workbench.dense_model(dict(workbench.uploaded)),
        "after": load(write_artifact(workbench, state)).to(workbench.device),
    }
    verdicts, done = {}, 0.0
    findings: dict[str, Any] = {"before": {}, "after": {}}
    for when, model in models.items():
        for piece in PIECES:
            watch = _Watch(state, observer, start=done, share=SHARES[piece])
            evaluate = _EVALUATE[piece]
            completed = state.verdicts.setdefault(f"{when}/{piece}", {})
            known = len(completed)
            verdict, described = evaluate(workbench, model, completed, watch)
            verdicts[when, piece] = verdict
            findings[when][piece] = described
            if len(completed) > known:  # not merely recalled from a checkpoint
                told = {"model": when, "attack": described["name"]}
                observer.event("evaluation.finished", told | Accuracy.of(verdict).to_json())
            done += SHARES[piece]
        findings[when]["flags"] = _flags(workbench, model, findings[when]["autoattack"])
    findings["paired"] = {
        piece: PairedComparison.of(verdicts["before", piece], verdicts["after", piece]).to_json()
        for piece in PIECES
    }
    findings["attacked"] = _replay_facts(workbench)
    state.findings[PHASE] = findings


def _flags(
    workbench: Workbench, model: nn.Module, autoattack: dict[str, Any]
) -> list[dict[str, str]]:
    """Return signs that the figures of this network cannot be trusted (evaluation.md, rule 7)."""
    sample = workbench.attacked.take(torch.arange(min(BATCH, len(workbench.attacked))))
    flags = model_flags(model, sample.images, sample.labels)
    flags += square_flags(autoattack["broken_by"], autoattack["n"])
    library = [{"code": code, "detail": "a warning of AutoAttack"} for code in autoattack["flags"]]
    return [flag.to_json() for flag in flags] + library


def _replay_facts(workbench: Workbench) -> dict[str, Any]:
    """Return what it takes to replay PGD to the example: rows, batches, seeds of the starts."""
    seed = derive_seed(workbench.task.seed, "evaluation")
    index = workbench.attacked_index.tolist()
    batches = range(math.ceil(len(index) / BATCH))
    return {
        "index": index,
        "batch_size": BATCH,
        "start_seeds": [derive_seed(seed, "pgd", batch, 0) for batch in batches],
    }


class _Watch:
    """Shows progress, saves and stops after each finished batch of an evaluation."""

    def __init__(self, state: State, observer: Observer, *, start: float, share: float) -> None:
        self._state, self._observer = state, observer
        self._start, self._share = start, share
        self._fraction = start

    def __call__(self, batch: BatchDone) -> None:
        self._fraction = min(1.0, self._start + self._share * batch.done / batch.total)
        self._observer.progress(PHASE, self._fraction)
        stop = self._observer.stop_requested()
        if stop or self._observer.save_due():
            self._observer.save(PHASE, self._state)
        if stop:
            raise Interrupted(PHASE)

    def heartbeat(self) -> None:
        """Say that a long attack is still at work; an attack that is stopped starts again."""
        self._observer.progress(PHASE, self._fraction)
        if self._observer.stop_requested():
            self._observer.save(PHASE, self._state)
            raise Interrupted(PHASE)


Evaluate = Callable[[Workbench, nn.Module, Completed, _Watch], tuple[Tensor, dict[str, Any]]]


def _clean(
    workbench: Workbench, model: nn.Module, completed: Completed, watch: _Watch
) -> tuple[Tensor, dict[str, Any]]:
    test = workbench.test
    if "all" not in completed:
        correct = clean_correct(model, test.images, test.labels, batch_size=BATCH)
        completed["all"] = {"correct": correct.tolist(), "flags": []}
        watch(BatchDone("all", 1, 1, completed["all"]))
    verdict = torch.tensor(completed["all"]["correct"])
    return verdict, _figure("clean", verdict)


def _pgd(
    workbench: Workbench, model: nn.Module, completed: Completed, watch: _Watch
) -> tuple[Tensor, dict[str, Any]]:
    verdict = pgd_correct(
        model,
        workbench.attacked.images,
        workbench.attacked.labels,
        workbench.task.threat,
        settings=PGD,
        seed=derive_seed(workbench.task.seed, "evaluation"),
        batch_size=BATCH,
        completed=completed,
        on_batch=watch,
    ).cpu()
    return verdict, _figure(PGD.name, verdict) | {"settings": PGD.to_json()}


def _autoattack(
    workbench: Workbench, model: nn.Module, completed: Completed, watch: _Watch
) -> tuple[Tensor, dict[str, Any]]:
    count = workbench.task.autoattack_examples
    result = autoattack_correct(
        model,
        workbench.attacked.images[:count],
        workbench.attacked.labels[:count],
        workbench.task.threat,
        seed=derive_seed(workbench.task.seed, "evaluation"),
        completed=completed,
        on_batch=watch,
        heartbeat=watch.heartbeat,
    )
    verdict = result.robust.cpu()
    return verdict, result.to_json() | _figure(result.settings["suite"], verdict)


def _figure(name: str, verdict: Tensor) -> dict[str, Any]:
    accuracy = Accuracy.of(verdict)
    label = {"label": "screening"} if accuracy.screening else {}
    return {"name": name, "correct": accuracy.correct, **accuracy.to_json(), **label}


_EVALUATE: dict[str, Evaluate] = {"clean": _clean, "pgd": _pgd, "autoattack": _autoattack}
