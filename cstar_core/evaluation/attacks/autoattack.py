"""AutoAttack (Croce and Hein 2020) behind one adapter, by the library `pyautoattack`.

The library is driven one attack at a time, on the survivors of the attacks before, which is its
own order of work, so that progress, a resume and the count per attack come for free.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cstar_core.attacks import ThreatModel, attack_mode
from cstar_core.evaluation.attacks.autoattack_library import (
    Suite,
    library_attack,
    library_contained,
    perturb,
    square_runs,
    suite_for,
    suite_settings,
)
from cstar_core.evaluation.attacks.precision import float32_exact
from cstar_core.evaluation.attacks.result import AttackResult
from cstar_core.evaluation.attacks.robustness import (
    Heartbeat,
    Watched,
    class_count,
    clean_correct,
    predict,
)
from cstar_core.evaluation.batches import (
    Completed,
    Ledger,
    OnBatch,
    Record,
    batch_slices,
    unit_interval,
)
from cstar_core.folding import attack_target
from cstar_core.training.randomness import derive_seed

# Iterations that are timed for an estimate: enough to drown the fixed cost, a small part of all.
# The quickest of a few timings counts: on a shared machine a single one may stall.
_TIMED_ITERATIONS, _TIMED_QUERIES, _TIMINGS = 4, 50, 3
# Slack for float32 rounding of a perturbation that the library clipped to the ball.
_BALL_SLACK = 1e-5


def autoattack_correct(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    seed: int,
    attacks: tuple[str, ...] | None = None,
    batch_size: int = 64,
    completed: Completed | None = None,
    on_batch: OnBatch | None = None,
    heartbeat: Heartbeat | None = None,
) -> AttackResult:
    """Attack every correctly classified image by each attack of the suite in turn.

    The suite is the standard one (or its fallback, `suite_for`), or the `attacks` named.
    The attacks run on a copy of the model with batch norms folded. An image is robust when model
    and copy classify it correctly and no attack finds an image within the ball that either
    misclassifies: rounding never helps the model. `completed` and `on_batch` work per batch and
    attack; `heartbeat` is called at every forward pass. Raises ValueError unless epsilon > 0, and
    for a model that is not float32.
    """
    if threat.epsilon <= 0:
        raise ValueError("AutoAttack needs an epsilon above 0; use clean_correct for epsilon 0")
    attacked = _Attacked(
        model=model,
        target=Watched(attack_target(model), heartbeat),
        threat=threat,
        suite=suite_for(
            class_count(model, images), attacks, with_square=square_runs(threat, images)
        ),
        seed=seed,
    )
    attacks = attacked.suite.attacks
    slices = list(batch_slices(len(images), batch_size))
    ledger = Ledger(len(slices) * len(attacks), completed=completed, on_batch=on_batch)
    clean = clean_correct(model, images, labels, batch_size=batch_size)
    robust = clean & clean_correct(attacked.target, images, labels, batch_size=batch_size)
    broken_by, flags = dict.fromkeys(attacks, 0), set[str]()
    with attacked.contained(images.device):
        for (index, where), attack in itertools.product(enumerate(slices), attacks):
            before = robust[where].clone()
            run = functools.partial(
                attacked.survivors, index, attack, images[where], labels[where], before
            )
            record = ledger.recall_or(f"{index}/{attack}", run)
            robust[where] = torch.tensor(record["correct"], device=robust.device)
            broken_by[attack] += int((before & ~robust[where]).sum())
            flags |= set(record["flags"])
    return AttackResult(
        robust=robust,
        clean=clean,
        broken_by=broken_by,
        flags=tuple(sorted(flags)),
        settings=suite_settings(attacked.suite, threat, seed=seed, batch_size=batch_size),
    )


def estimate_seconds(
    model: nn.Module,
    images: Tensor,
    threat: ThreatModel,
    *,
    robust_fraction: float = 1.0,
    batch_size: int = 64,
) -> float:
    """Roughly how long the suite takes on `images` if `robust_fraction` of them survive it all.

    Times a few iterations of each attack, at an epsilon too small to break anything, on a batch
    as large as the survivors', and scales them up: an upper bound at the default of 1.
    """
    survivors = max(1, round(robust_fraction * min(batch_size, len(images))))
    sample = unit_interval(images[:survivors])
    suite = suite_for(class_count(model, images), with_square=square_runs(threat, images))
    harmless = ThreatModel(threat.norm, 1e-6)
    target = attack_target(model)
    with float32_exact(model), attack_mode(target), library_contained(images.device):
        labels = predict(target, sample)
        library = library_attack(target, suite, harmless, seed=0, device=images.device)
        per_batch = sum(_extrapolate(library, name, sample, labels) for name in suite.attacks)
    return per_batch * robust_fraction * len(images) / survivors


def _extrapolate(library: Any, attack: str, images: Tensor, labels: Tensor) -> float:
    """Seconds of one whole attack on a batch, from a shortened one."""
    library.fab.targeted = attack == "fab-t"
    part, field, repeats = {
        "apgd-ce": (library.apgd, "n_iter", library.apgd.n_restarts),
        "apgd-t": (library.apgd_targeted, "n_iter", library.apgd_targeted.n_target_classes),
        "fab": (library.fab, "n_iter", library.fab.n_restarts),
        "fab-t": (library.fab, "n_iter", library.fab.n_target_classes),
        "square": (library.square, "n_queries", 1),
    }[attack]
    whole = getattr(part, field)
    short = _TIMED_QUERIES if attack == "square" else _TIMED_ITERATIONS
    setattr(part, field, short)
    part.n_restarts = part.n_target_classes = 1
    seconds = min(_timed(part, images, labels) for _ in range(_TIMINGS))
    # Each attack also looks once at where it starts.
    return float(seconds * repeats * (whole + 1) / (short + 1))


def _timed(part: Any, images: Tensor, labels: Tensor) -> float:
    started = time.perf_counter()
    part.perturb(images, labels)
    return time.perf_counter() - started


@dataclass(frozen=True)
class _Attacked:
    """A model under attack; every attack on a batch starts from the clean images and one seed."""

    model: nn.Module
    target: nn.Module
    threat: ThreatModel
    suite: Suite
    seed: int

    @contextlib.contextmanager
    def contained(self, device: torch.device) -> Iterator[None]:
        """Give back model and interpreter as they were, whatever the library does to them."""
        models = self.model, self.target
        with float32_exact(*models), library_contained(device), contextlib.ExitStack() as stack:
            for model in models:
                stack.enter_context(attack_mode(model))
            yield

    def survivors(
        self, index: int, attack: str, images: Tensor, labels: Tensor, robust: Tensor
    ) -> Record:
        """Which examples of batch `index` are robust after `attack`, given those before it."""
        flags: set[str] = set()
        survives = robust.clone()
        if robust.any():
            images, labels = unit_interval(images[robust]), labels[robust]
            library = library_attack(
                self.target,
                self.suite,
                self.threat,
                seed=derive_seed(self.seed, "autoattack", index) % 2**31,
                device=images.device,
                flags=flags,
            )
            adversarial = perturb(library, attack, images, labels)
            survives[robust] = ~self._is_adversarial(adversarial, images, labels)
        return {"correct": survives.tolist(), "flags": sorted(flags)}

    @torch.no_grad()
    def _is_adversarial(self, adversarial: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        order = float("inf") if self.threat.norm == "linf" else 2
        change = (adversarial - images).flatten(1)
        distance: Tensor = torch.linalg.vector_norm(change, ord=order, dim=1)
        within = distance <= self.threat.epsilon * (1 + _BALL_SLACK) + _BALL_SLACK
        valid = ((adversarial >= 0) & (adversarial <= 1)).flatten(1).all(1)
        by_model: Tensor = self.model(adversarial).argmax(1) != labels
        by_target: Tensor = self.target(adversarial).argmax(1) != labels
        return within & valid & (by_model | by_target)
