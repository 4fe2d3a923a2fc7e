"""P16: a training step on a GPU as the service runs it there, beside eager float32."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import torch

from benchmarks.harness import Settings, Timing, Unavailable
from benchmarks.networks import Subject, random_batch
from benchmarks.peers import LEARNING_RATE, STEPS, NaiveTraining
from benchmarks.rows import Bar, Row, speed_up
from cstar_core.attacks import ThreatModel
from cstar_core.training.config import AttackConfig, TrainingConfig
from cstar_core.training.loop import AdversarialTrainer

BATCH, ROUNDS, WARMUP = 128, 20, 5


def p16(settings: Settings) -> Iterator[Row]:
    """PGD-10 training of ResNet-18, by the clock: a GPU's time is not processor time."""
    if not torch.cuda.is_available():
        raise Unavailable("it needs a CUDA GPU, and there is none here")
    images, labels = (part.cuda() for part in random_batch(BATCH, seed=settings.seed))
    make = partial(Subject.of, "resnet18_cifar", seed=settings.seed)
    eager = NaiveTraining(make().model().cuda(), (images, labels), train_mode=False)
    config = TrainingConfig(
        epochs=1,
        batch_size=BATCH,
        learning_rate=LEARNING_RATE,
        attack=AttackConfig(steps=STEPS),
        precision="bfloat16",
        compile=True,
    )
    repeats = ROUNDS + WARMUP
    trainer = AdversarialTrainer(
        make().model().cuda(),
        images.repeat(repeats, 1, 1, 1),
        labels.repeat(repeats),
        threat=ThreatModel("linf", 8 / 255),
        config=config,
        seed=settings.seed,
        phase="benchmark",
    )
    timings = _clocked({"ours": partial(next, trainer.run()), "eager float32": eager.step})
    yield speed_up(
        "P16",
        f"training step with PGD-{STEPS} on the GPU, ResNet-18, batch {BATCH}",
        timings,
        ours="ours",
        peer="eager float32",
        bar=Bar(3, 6),
        note=f"run as {trainer.effective}",
    )


def _clocked(runs: dict[str, Callable[[], object]]) -> dict[str, Timing]:
    """Candidates in turn by the clock; rounds in which code is compiled do not count."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS + WARMUP):
        for name, run in runs.items():
            torch.cuda.synchronize()
            started = time.perf_counter()
            run()
            torch.cuda.synchronize()
            times[name].append(time.perf_counter() - started)
    return {name: Timing.of(seconds[WARMUP:]) for name, seconds in times.items()}
