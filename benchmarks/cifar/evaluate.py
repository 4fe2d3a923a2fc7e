"""Figures of a network on the test images: clean, PGD-20 and, where asked for, AutoAttack."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from cstar_core.evaluation.attacks.autoattack import autoattack_correct
from cstar_core.evaluation.attacks.robustness import PgdSettings, clean_correct, pgd_correct
from cstar_core.evaluation.batches import OnBatch
from cstar_core.evaluation.statistics import Accuracy
from cstar_core.pipeline import State, Workbench
from cstar_core.training.randomness import derive_seed

PGD = PgdSettings(steps=20)
AUTOATTACK_BATCH = {"cpu": 32, "cuda": 500}  # one attack on one batch must fit into a stage


def figures(
    workbench: Workbench, model: nn.Module, state: State, keep: Callable[[], None], *, name: str
) -> dict[str, Any]:
    """Return clean accuracy on all test images and PGD-20 on those the task attacks.

    Finished batches are in `state.verdicts` under `name`; `keep` is called after each.
    """
    task, test, attacked = workbench.task, workbench.test, workbench.attacked
    clean = clean_correct(model, test.images, test.labels)
    robust = pgd_correct(
        model,
        attacked.images,
        attacked.labels,
        task.threat,
        settings=PGD,
        seed=derive_seed(task.seed, "evaluation"),
        completed=state.verdicts.setdefault(f"{name}/{PGD.name}", {}),
        on_batch=_after(keep),
    )
    return {"clean": Accuracy.of(clean).to_json(), PGD.name: Accuracy.of(robust).to_json()}


def autoattack(
    workbench: Workbench, model: nn.Module, state: State, keep: Callable[[], None]
) -> dict[str, Any]:
    """Return what AutoAttack standard finds on the first of the attacked images; as `figures`."""
    attacked, count = workbench.attacked, workbench.task.autoattack_examples
    result = autoattack_correct(
        model,
        attacked.images[:count],
        attacked.labels[:count],
        workbench.task.threat,
        seed=derive_seed(workbench.task.seed, "evaluation"),
        batch_size=AUTOATTACK_BATCH[workbench.device.type],
        completed=state.verdicts.setdefault("autoattack", {}),
        on_batch=_after(keep),
    )
    return result.to_json()


def _after(keep: Callable[[], None]) -> OnBatch:
    return lambda _: keep()
