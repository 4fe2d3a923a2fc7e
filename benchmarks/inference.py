"""P1 to P4: inference of ResNet-18 at 8x, beside the dense network in the same runtime."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import nn

from benchmarks.harness import Settings, Timing, Unavailable, interleave
from benchmarks.networks import SHAPE, Subject
from benchmarks.pruning import pruned
from benchmarks.rows import Bar, Row, speed_up
from benchmarks.runtimes import RUNTIMES, Exported
from cstar_core.factorization import factorise
from cstar_core.layers import count_macs, count_parameters
from cstar_core.ranks import RankPlan, energy_plan, plan_network, spectra

RATIO, MULTIPLE = 8.0, 8
DENSE, PRUNED = "dense", "torch-pruning"
RECOMMENDED = "what the planner recommends where there are no images to score plans on"
ONNX_RUNTIME, OPENVINO = RUNTIMES
BATCHES = {(ONNX_RUNTIME, 1): "P1", (OPENVINO, 32): "P2"}


@dataclass(frozen=True)
class Contender:
    """An exported network, and how many times fewer parameters and MACs it has than dense."""

    exported: Exported
    ratio: float
    macs_ratio: float
    remark: str = ""

    @classmethod
    def of(cls, network: nn.Module, subject: Subject, remark: str = "") -> Contender:
        """Export `network`, which came from that of `subject`."""
        return cls(
            Exported.of(network),
            subject.inventory.parameters / count_parameters(network),
            subject.macs / count_macs(network, SHAPE),
            remark,
        )

    def __str__(self) -> str:
        costs = f"{self.ratio:.2f}x fewer parameters, {self.macs_ratio:.2f}x fewer MACs"
        return f"{costs}; {self.remark}" if self.remark else costs


Field = Mapping[str, Contender]


def p1(settings: Settings) -> Iterator[Row]:
    """Batch 1 in ONNX Runtime."""
    yield from _beside_dense(settings, ONNX_RUNTIME, batch=1, bar=Bar(3.5, 5.5))


def p2(settings: Settings) -> Iterator[Row]:
    """Batch 32 in OpenVINO."""
    yield from _beside_dense(settings, OPENVINO, batch=32, bar=Bar(4, 6))


def p3(settings: Settings) -> Iterator[Row]:
    """A plan under limits for parameters and MACs, beside one under that for parameters alone.

    Both limits are the dense network's cost divided by 8. The bar is on the weighting whose two
    plans are closest in parameters: the target is about equal parameters.
    """
    subject = _subject(settings)
    pairs = {weighting: _pair(subject, weighting) for weighting in ("raw", "relative")}
    closest = min(pairs, key=lambda weighting: abs(_share(pairs[weighting]) - 1))
    for weighting, pair in pairs.items():
        both, alone = f"energy-{weighting}, MACs / 8 too", f"energy-{weighting}, parameters / 8"
        field = {name: _factorised(subject, p) for name, p in zip((both, alone), pair, strict=True)}
        timings = _measure(field, ONNX_RUNTIME, batch=1, seconds=settings.seconds)
        yield speed_up(
            "P3",
            "ResNet-18, ranks mult. of 8, ONNX Runtime, batch 1: a MAC budget beside",
            timings,
            ours=both,
            peer=alone,
            bar=Bar(1.8, 2.5) if weighting == closest else None,
            note=f"{_share(pair):.2f} of the parameters; {field[both]}, beside {field[alone]}",
        )


def p4(settings: Settings) -> Iterator[Row]:
    """The speed-up of the fastest plan as a share of its MAC ratio, in every runtime of P1, P2."""
    shares = {}
    for runtime, batch in BATCHES:
        timings, field = _timings(settings, runtime, batch), _field(settings)
        name = _fastest(timings, field)
        gained = timings[DENSE].median_ms / timings[name].median_ms
        shares[f"{name}, {runtime}, batch {batch}"] = gained / field[name].macs_ratio
    best = max(shares, key=shares.__getitem__)
    for name, share in shares.items():
        bar = Bar(0.6, 0.85) if name == best else None
        yield Row("P4", "speed-up realised of the MAC ratio", name, "its MAC ratio", share, bar=bar)


def _beside_dense(settings: Settings, runtime: str, *, batch: int, bar: Bar) -> Iterator[Row]:
    """One row for every plan and the pruned network; the bar is on the fastest plan."""
    field, timings = _field(settings), _timings(settings, runtime, batch)
    fastest = _fastest(timings, field)
    for name in sorted(field, key=lambda name: name != fastest):
        if name == DENSE:
            continue
        yield speed_up(
            BATCHES[runtime, batch],
            f"ResNet-18 at 8x, ranks mult. of 8, {runtime}, batch {batch}",
            timings,
            ours=name,
            peer=DENSE,
            bar=bar if name == fastest else None,
            note=str(field[name]),
        )


def _fastest(timings: Mapping[str, Timing], field: Field) -> str:
    plans = [name for name in field if name not in (DENSE, PRUNED)]
    return min(plans, key=lambda name: timings[name].median_ms)


@functools.cache
def _timings(settings: Settings, runtime: str, batch: int) -> Mapping[str, Timing]:
    return _measure(_field(settings), runtime, batch=batch, seconds=settings.seconds)


def _measure(field: Field, runtime: str, *, batch: int, seconds: float) -> Mapping[str, Timing]:
    runs = {name: each.exported.candidate(runtime, batch=batch) for name, each in field.items()}
    return interleave(runs, seconds=seconds, warmup=3)


@functools.cache
def _field(settings: Settings) -> Field:
    """The dense network, every plan the planner offers, and the pruned network if it can be had."""
    subject = _subject(settings)
    budget = subject.inventory.budget(RATIO)
    proposal = plan_network(subject.network, subject.layers, [budget], multiple=MULTIPLE)
    field = {DENSE: Contender.of(subject.network, subject)}
    for plan in proposal.plans:
        remark = RECOMMENDED if plan is proposal.recommended else ""
        field[plan.name] = _factorised(subject, plan, remark)
    try:
        peer = pruned(subject, budget.limit, multiple=MULTIPLE)
    except Unavailable as reason:
        print(f"     without a row for torch-pruning: {reason}")
    else:
        field[PRUNED] = Contender.of(peer, subject)
    return field


def _subject(settings: Settings) -> Subject:
    return Subject.of("resnet18_cifar", seed=settings.seed)


def _factorised(subject: Subject, plan: RankPlan, remark: str = "") -> Contender:
    return Contender.of(factorise(subject.network, plan, hooi_sweeps=0), subject, remark)


def _pair(subject: Subject, weighting: str) -> tuple[RankPlan, RankPlan]:
    """The plan under both limits, and the one under the limit for parameters alone."""
    tables = spectra(subject.network, subject.layers)
    parameters = subject.inventory.budget(RATIO)
    macs = subject.inventory.budget(RATIO, "macs")
    plan = functools.partial(
        energy_plan,
        subject.inventory,
        tables,
        weighting="raw" if weighting == "raw" else "relative",
        multiple=MULTIPLE,
    )
    return plan([parameters, macs]), plan([parameters])


def _share(pair: tuple[RankPlan, RankPlan]) -> float:
    """Parameters of the first plan as a share of those of the second."""
    return pair[0].parameters / pair[1].parameters
