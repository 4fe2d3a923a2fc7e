"""P8 and P11: what an ADMM epoch spends on projections, and a whole training step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from benchmarks.harness import MOST_ROUNDS, Settings, interleave
from benchmarks.networks import Subject, random_batch
from benchmarks.peers import LEARNING_RATE, MOMENTUM, STEPS, NaiveTraining
from benchmarks.rows import Bar, Row, speed_up
from cstar_core.attacks import ThreatModel
from cstar_core.projection import project
from cstar_core.ranks import RankPlan, energy_plan, renew, spectra
from cstar_core.training.admm import Admm, AdmmConfig, initial_rho
from cstar_core.training.config import AttackConfig, TrainingConfig
from cstar_core.training.loop import AdversarialTrainer

RATIO = 8.0
THREAT = ThreatModel("linf", 8 / 255)
EXAMPLES = 50_000  # of CIFAR-10, in an epoch of P8
WARMUP = 1

# The batch is smaller where a step is long; P8 counts as many steps as an epoch then has.
NETWORKS = {"ResNet-8": ("resnet8_cifar", 128), "ResNet-20": ("resnet20_cifar", 128),
            "ResNet-18": ("resnet18_cifar", 16)}  # fmt: skip


def p8(settings: Settings) -> Iterator[Row]:
    """Projection, and ranks chosen anew, as a share of an epoch of ADMM with PGD-10."""
    for name in ("ResNet-20", "ResNet-18"):
        architecture, batch = NETWORKS[name]
        subject = Subject.of(architecture, seed=settings.seed)
        plan = _plan(subject)
        admm = _admm(subject, plan, steps=EXAMPLES // batch)
        runs: dict[str, Callable[[], object]] = {
            "step": _steps(_trainer(subject, batch, settings.seed, admm)),
            "projection": partial(admm.epoch_end, 0, learning_rate=LEARNING_RATE),
            "new ranks": partial(_new_ranks, subject, plan),
        }
        timings = interleave(runs, seconds=settings.seconds, warmup=WARMUP)
        projection, ranks = (timings[part].median_ms for part in ("projection", "new ranks"))
        steps = EXAMPLES // batch * timings["step"].median_ms
        share = 100 * projection / (steps + projection)
        anew = 100 * (projection + ranks) / (steps + projection + ranks)
        yield Row(
            "P8",
            f"projections in an ADMM epoch of {name}, PGD-{STEPS}, {EXAMPLES:,} images",
            f"Z and dual of {len(plan.factorised)} layers",
            f"an epoch of {EXAMPLES // batch} steps of {batch}",
            share,
            unit="%",
            bar=Bar(2, 0.2, smaller_is_better=True),
            note=f"{anew:.2g}% where ranks are chosen anew as well",
            timings=timings,
        )


def p11(settings: Settings) -> Iterator[Row]:
    """One step of the training loop, beside loops as tutorials write them."""
    for name, (architecture, batch) in NETWORKS.items():
        make = partial(Subject.of, architecture, seed=settings.seed)
        data = random_batch(batch, seed=settings.seed)
        loops = {
            "naive loop": NaiveTraining(make().model(), data, train_mode=True).step,
            "naive loop, eval mode": NaiveTraining(make().model(), data, train_mode=False).step,
        }
        ours = _steps(_trainer(make(), batch, settings.seed))
        timings = interleave({"ours": ours, **loops}, seconds=settings.seconds, warmup=WARMUP)
        for peer in loops:
            yield speed_up(
                "P11",
                f"training step with PGD-{STEPS}, {name}, batch {batch}",
                timings,
                ours="ours",
                peer=peer,
                bar=Bar(1.6, 2.2) if peer == "naive loop" else None,
            )


def _trainer(
    subject: Subject, batch: int, seed: int, constraint: Admm | None = None
) -> AdversarialTrainer:
    """The training loop of the service; its epoch is longer than any measurement."""
    images, labels = random_batch(batch * (MOST_ROUNDS + WARMUP), seed=seed)
    config = TrainingConfig(
        epochs=1,
        batch_size=batch,
        learning_rate=LEARNING_RATE,
        momentum=MOMENTUM,
        attack=AttackConfig(steps=STEPS),
    )
    return AdversarialTrainer(
        subject.model(),
        images,
        labels,
        threat=THREAT,
        config=config,
        seed=seed,
        phase="benchmark",
        constraint=constraint,
    )


def _steps(trainer: AdversarialTrainer) -> Callable[[], object]:
    """One training step a call."""
    return partial(next, trainer.run())


def _admm(subject: Subject, plan: RankPlan, *, steps: int) -> Admm:
    """ADMM on the layers of `plan`, at the rho with which a job starts."""
    ranks = {layer.name: layer.ranks for layer in plan.factorised if layer.ranks is not None}
    return Admm(
        {name: subject.network.get_parameter(f"{name}.weight") for name in ranks},
        {name: partial(project, ranks=each) for name, each in ranks.items()},
        rho=initial_rho(learning_rate=LEARNING_RATE, momentum=MOMENTUM, steps_per_epoch=steps),
        config=AdmmConfig(epochs=60),
    )


def _plan(subject: Subject) -> RankPlan:
    """By energy, the slower of the two strategies to make anew."""
    tables = spectra(subject.network, subject.layers)
    return energy_plan(subject.inventory, tables, [subject.inventory.budget(RATIO)])


def _new_ranks(subject: Subject, plan: RankPlan) -> RankPlan:
    return renew(plan, subject.inventory, spectra(subject.network, subject.layers))
