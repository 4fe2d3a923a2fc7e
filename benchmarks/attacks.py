"""P9 and P13: the speed of PGD, beside torchattacks, a naive loop and the machine's peak."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks import machine
from benchmarks.harness import Settings, Timing, interleave
from benchmarks.networks import Subject, random_batch
from benchmarks.peers import EPSILON, STEP_SIZE, STEPS, naive_pgd, torchattacks_pgd
from benchmarks.rows import Bar, Row, speed_up
from cstar_core.attacks import ThreatModel, pgd
from cstar_core.folding import FoldedCopy, attack_target
from cstar_core.training.randomness import generator

OURS, TORCHATTACKS, NAIVE, SGEMM = "ours", "torchattacks.PGD", "naive loop", "sgemm"


@dataclass(frozen=True)
class Case:
    """A network whose attack is timed, and what P9 and, where it has one, P13 ask of it."""

    name: str
    architecture: str
    batch: int
    bar: Bar
    flops_bar: Bar | None = None


CASES = (
    Case("ResNet-8", "resnet8_cifar", 128, Bar(1.3, 1.9)),
    Case("ResNet-20", "resnet20_cifar", 128, Bar(1.3, 1.6), Bar(45, 62)),
    Case("ResNet-18", "resnet18_cifar", 16, Bar(1.05, 1.3)),
)


def p9(settings: Settings) -> Iterator[Row]:
    """PGD-10 on a batch as the training loop runs it, refolding included."""
    for case in CASES:
        timings = _attacked(settings, case)
        for peer in (TORCHATTACKS, NAIVE):
            yield speed_up(
                "P9",
                f"PGD-{STEPS} on {case.name}, batch {case.batch}",
                timings,
                ours=OURS,
                peer=peer,
                bar=case.bar if peer == TORCHATTACKS else None,
            )


def p13(settings: Settings) -> Iterator[Row]:
    """Operations that the attack needs, forward and back to the input, per second of its time."""
    for case in CASES:
        timings = _attacked(settings, case)
        operations = 4 * _subject(settings, case).macs * case.batch * STEPS
        ours = machine.gflops(operations, timings[OURS].median_ms)
        peak = machine.gflops(2 * machine.SIDE**3, timings[SGEMM].median_ms)
        yield Row(
            "P13",
            f"useful FLOP/s in PGD-{STEPS} on {case.name}, batch {case.batch}",
            f"{ours:.1f} GFLOP/s",
            f"sgemm {peak:.1f} GFLOP/s",
            100 * ours / peak,
            unit="%",
            bar=case.flops_bar,
            timings={name: timings[name] for name in (OURS, SGEMM)},
        )


@functools.cache
def _attacked(settings: Settings, case: Case) -> Mapping[str, Timing]:
    model = _subject(settings, case).model()
    pixels, labels = random_batch(case.batch, seed=settings.seed)
    images = pixels.float() / 255
    peer = torchattacks_pgd(model)
    runs = {
        OURS: functools.partial(_ours, attack_target(model), images, labels, seed=settings.seed),
        TORCHATTACKS: functools.partial(peer, images, labels),
        NAIVE: functools.partial(naive_pgd, model, images, labels),
        SGEMM: machine.sgemm(),
    }
    return interleave(runs, seconds=settings.seconds)


def _subject(settings: Settings, case: Case) -> Subject:
    return Subject.of(case.architecture, seed=settings.seed)


def _ours(target: nn.Module, images: Tensor, labels: Tensor, *, seed: int) -> Tensor:
    if isinstance(target, FoldedCopy):
        target.refresh()
    return pgd(
        target,
        images.contiguous(memory_format=torch.channels_last),
        labels,
        ThreatModel("linf", EPSILON),
        steps=STEPS,
        step_size=STEP_SIZE,
        random_start=True,
        generator=generator(seed, "attack"),
    )
