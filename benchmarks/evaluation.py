"""P10 and P12: what PGD-20 finds, beside torchattacks, and how soon, beside PGD on every image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.harness import Settings, interleave
from benchmarks.peers import torchattacks_pgd
from benchmarks.rows import Bar, Row, speed_up
from benchmarks.trained import Trained, natural_networks, robust_networks
from cstar_core.attacks import (
    ThreatModel,
    ascend,
    attack_mode,
    input_gradient,
    pgd,
    uniform_start,
)
from cstar_core.evaluation.attacks.robustness import PgdSettings, clean_correct, pgd_correct
from cstar_core.folding import attack_target
from cstar_core.training.randomness import generator

STEPS = 20
BATCH = 250
Evaluation = Callable[[], Tensor]

EARLY, FULL = "early drop", "every step on every image"


def p10(settings: Settings) -> Iterator[Row]:
    """Points of robust accuracy that torchattacks finds beyond ours from the same start."""
    for subject in (*robust_networks(settings), *natural_networks(settings)):
        ours, theirs = _accuracies(subject, settings.seed)
        yield Row(
            "P10",
            f"accuracy under PGD-{STEPS} on {len(subject.labels)} images, {subject.name}",
            f"ours {ours:.1f} %",
            f"torchattacks.PGD {theirs:.1f} %, same start",
            ours - theirs,
            unit="points",
            bar=Bar(0.5, 0, smaller_is_better=True),
        )


def p12(settings: Settings) -> Iterator[Row]:
    """PGD-20 that leaves fallen images alone, beside PGD-20 on all; the verdicts must be equal.

    The bar is on the first network: it resists this epsilon, as those do that are evaluated.
    """
    for number, subject in enumerate(robust_networks(settings)):
        attacked = (subject.model, subject.images, subject.labels, subject.threat)
        pgd_20 = partial(pgd_correct, settings=PgdSettings(STEPS), batch_size=BATCH)
        early = partial(pgd_20, *attacked, seed=settings.seed)
        full = partial(full_pgd, *attacked, seed=settings.seed)
        timings = interleave({EARLY: early, FULL: full}, seconds=settings.seconds, warmup=0)
        yield speed_up(
            "P12",
            f"PGD-{STEPS} of {len(subject.labels)} images, {subject.name}",
            timings,
            ours=EARLY,
            peer=FULL,
            bar=Bar(2, 3.6) if number == 0 else None,
            note=_compared(subject, early, full),
        )


def _compared(subject: Trained, early: Evaluation, full: Evaluation) -> str:
    """How accurate the network is, and what early drop can save; raises if verdicts differ."""
    robust = early()
    if not torch.equal(robust, full()):
        raise AssertionError(f"early drop changes verdicts on {subject.name}")
    clean = clean_correct(subject.model, subject.images, subject.labels)
    fewer = _images_seen(subject.model, full) / _images_seen(subject.model, early)
    return (
        f"equal verdicts; clean {100 * clean.float().mean():.1f} %, "
        f"robust {100 * robust.float().mean():.1f} %; {fewer:.2f}x fewer images through the network"
    )


def _accuracies(subject: Trained, seed: int) -> tuple[float, float]:
    """Percent correct after our PGD and after torchattacks'; raises if their starts differ."""
    our_start, their_start = (
        _perturbed(subject, attack, 0, seed) for attack in (_our_pgd, _their_pgd)
    )
    if not torch.allclose(our_start, their_start, rtol=0, atol=1e-6):
        raise AssertionError("the two attacks do not start from the same images")
    ours, theirs = (
        100 * float(clean_correct(subject.model, images, subject.labels).float().mean())
        for images in (
            _perturbed(subject, attack, STEPS, seed) for attack in (_our_pgd, _their_pgd)
        )
    )
    return ours, theirs


Attack = Callable[[Trained, Tensor, Tensor, int, int], Tensor]


def _perturbed(subject: Trained, attack: Attack, steps: int, seed: int) -> Tensor:
    """All images after `steps` of `attack`, batch by batch, each batch from a seed of its own."""
    batches = enumerate(_batches(subject.images, subject.labels))
    return torch.cat([attack(subject, *batch, steps, seed + number) for number, batch in batches])


def _our_pgd(subject: Trained, images: Tensor, labels: Tensor, steps: int, seed: int) -> Tensor:
    return pgd(
        attack_target(subject.model),
        images,
        labels,
        subject.threat,
        steps=steps,
        step_size=_step_size(subject.threat),
        random_start=True,
        generator=torch.Generator().manual_seed(seed),
    )


def _their_pgd(subject: Trained, images: Tensor, labels: Tensor, steps: int, seed: int) -> Tensor:
    epsilon = subject.threat.epsilon
    step_size = _step_size(subject.threat)
    attack = torchattacks_pgd(subject.model, steps=steps, epsilon=epsilon, step_size=step_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # torchattacks draws from the global generator
        perturbed: Tensor = attack(images, labels)
    return perturbed


def full_pgd(
    model: nn.Module, images: Tensor, labels: Tensor, threat: ThreatModel, *, seed: int
) -> Tensor:
    """`pgd_correct` without early drop: the worst case over all steps, all taken for all images."""
    with attack_mode(model):
        return torch.cat(
            [
                _survivors(model, *batch, threat, source=generator(seed, "pgd", number, 0))
                for number, batch in enumerate(_batches(images, labels))
            ]
        )


def _survivors(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    source: torch.Generator,
) -> Tensor:
    norm, epsilon = threat.norm, threat.epsilon
    alive = clean_correct(model, images, labels)
    perturbed = uniform_start(images, norm=norm, radius=epsilon, generator=source)
    for _ in range(STEPS):
        logits, gradient = input_gradient(model, perturbed, labels)
        alive &= logits.argmax(1) == labels
        perturbed = ascend(
            perturbed,
            gradient,
            images=images,
            norm=norm,
            radius=epsilon,
            step_size=_step_size(threat),
        )
    return alive & clean_correct(model, perturbed, labels)


def _images_seen(model: nn.Module, run: Callable[[], object]) -> int:
    """How many images `run` puts through the model: what early drop can save at most."""
    seen = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:  # noqa: ARG001
        nonlocal seen
        seen += len(inputs[0])

    handle = model.register_forward_pre_hook(count)
    try:
        run()
    finally:
        handle.remove()
    return seen


def _batches(images: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    parts = (torch.split(tensor, BATCH) for tensor in (images, labels))
    return list(zip(*parts, strict=True))


def _step_size(threat: ThreatModel) -> float:
    return PgdSettings(STEPS).relative_step * threat.epsilon
