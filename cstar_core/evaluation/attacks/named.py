"""Attacks by name, behind one interface: for whoever uses this package as a library."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cstar_core.attacks import ThreatModel
from cstar_core.evaluation.attacks.autoattack import autoattack_correct
from cstar_core.evaluation.attacks.result import AttackResult
from cstar_core.evaluation.attacks.robustness import (
    Heartbeat,
    PgdSettings,
    clean_correct,
    pgd_correct,
)
from cstar_core.evaluation.batches import Completed, OnBatch


@dataclass(frozen=True)
class SuiteAttack:
    """Attacks of AutoAttack's library: the whole suite, or Square alone."""

    name: str
    attacks: tuple[str, ...] | None


NamedAttack = PgdSettings | SuiteAttack

_SUITES = {
    "autoattack": SuiteAttack("autoattack", None),
    "square": SuiteAttack("square", ("square",)),
}
UNDERSTOOD = "pgd-STEPS, pgd-STEPSxRESTARTS, either with -margin, square, autoattack"


def named_attack(name: str) -> NamedAttack:
    """The attack called `name`, such as `pgd-20`, `pgd-50x5-margin`, `square` or `autoattack`.

    `-margin` raises the margin of Carlini and Wagner (2017) instead of the cross-entropy. Raises
    ValueError for other names, saying which are understood.
    """
    if name in _SUITES:
        return _SUITES[name]
    try:
        return PgdSettings.parse(name)
    except ValueError:
        raise ValueError(f"unknown attack {name!r}; understood are: {UNDERSTOOD}") from None


def attack_correct(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    attack: NamedAttack | str,
    *,
    seed: int,
    batch_size: int = 64,
    completed: Completed | None = None,
    on_batch: OnBatch | None = None,
    heartbeat: Heartbeat | None = None,
) -> AttackResult:
    """Attack the images by `attack`, an attack or its name: a verdict per example, and how.

    Finished pieces are found in `completed` and not run again; equal seeds give equal verdicts.
    Raises ValueError for an unknown name, a model that is not float32, and an epsilon of 0 where
    AutoAttack's library is asked.
    """
    chosen = named_attack(attack) if isinstance(attack, str) else attack
    if isinstance(chosen, SuiteAttack):
        return autoattack_correct(
            model,
            images,
            labels,
            threat,
            attacks=chosen.attacks,
            seed=seed,
            batch_size=batch_size,
            completed=completed,
            on_batch=on_batch,
            heartbeat=heartbeat,
        )
    robust = pgd_correct(
        model,
        images,
        labels,
        threat,
        settings=chosen,
        seed=seed,
        batch_size=batch_size,
        completed=completed,
        on_batch=on_batch,
        heartbeat=heartbeat,
    )
    clean = clean_correct(model, images, labels, batch_size=batch_size)
    facts = {"threat": threat.to_json(), "seed": seed, "batch_size": batch_size}
    return AttackResult(
        robust=robust,
        clean=clean,
        broken_by={chosen.name: int((clean & ~robust).sum())},
        flags=(),
        settings=chosen.to_json() | facts,
    )


def worst_case(*verdicts: Tensor) -> Tensor:
    """Whether each example survives every attack, (N,) bool, from the verdicts of each, (N,).

    The accuracy under all attacks is that of these verdicts, never the mean or the least of the
    attacks' accuracies. Raises ValueError for no verdicts, or verdicts on other examples.
    """
    if not verdicts or any(verdict.shape != verdicts[0].shape for verdict in verdicts):
        raise ValueError("need the verdicts of at least one attack, all on the same examples")
    return torch.stack([verdict.cpu() for verdict in verdicts]).all(0)
