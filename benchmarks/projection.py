"""P5 and P6: projecting the 3x3 layers of ResNet-18, beside tensorly's partial_tucker."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchmarks.harness import Settings, Timing, Unavailable, interleave
from benchmarks.networks import Subject
from benchmarks.rows import Bar, Row, speed_up
from cstar_core.factorization import HOOI_SWEEPS
from cstar_core.projection import Ranks, Tucker2, tucker2
from cstar_core.ranks import RankPlan, spectra, uniform_plan

RATIO = 8.0
LARGEST_EXCESS = 1e-3  # of |W - Z| / |W| over that of tensorly
MOST_SWEEPS = 12
PROJECTION, DEFAULT, ONE_ITERATION = "ST-HOSVD", "tensorly", "tensorly, one iteration"

Decompose = Callable[[Tensor, Ranks], Tucker2]


@dataclass(frozen=True)
class Problem:
    """The weights of the factorised 3x3 layers, (O, I, 3, 3) each, and their ranks."""

    weights: Sequence[Tensor]
    ranks: Sequence[Ranks]

    @classmethod
    def of(cls, subject: Subject) -> Problem:
        """Every 3x3 layer but the stem, at the ranks of the uniform plan for 8x."""
        plan = uniform_resnet18(subject)
        layers = [layer for layer in plan.factorised if layer.kind == "conv"]
        weights = [subject.network.get_parameter(f"{layer.name}.weight") for layer in layers]
        ranks = [layer.ranks for layer in layers if layer.ranks is not None]
        return cls([weight.detach() for weight in weights], ranks)

    def run(self, decompose: Decompose) -> list[Tucker2]:
        """What `decompose` makes of every layer."""
        return [decompose(w, r) for w, r in zip(self.weights, self.ranks, strict=True)]

    def error(self, found: Sequence[Tucker2]) -> float:
        """|W - Z| / |W| over all layers."""
        pairs = zip(self.weights, found, strict=True)
        lost = sum(float((w - z.reconstruct()).double().square().sum()) for w, z in pairs)
        return math.sqrt(lost / sum(float(w.double().square().sum()) for w in self.weights))


def uniform_resnet18(subject: Subject) -> RankPlan:
    """The uniform plan for 8x fewer parameters."""
    tables = spectra(subject.network, subject.layers)
    return uniform_plan(subject.inventory, tables, [subject.inventory.budget(RATIO)])


def p5(settings: Settings) -> Iterator[Row]:
    """ST-HOSVD of all 3x3 layers beside tensorly's default, and its single iteration."""
    run = _measured(settings)
    quantity = f"project the {run.layers} 3x3 layers of ResNet-18, ranks of 8x"
    for peer in (DEFAULT, ONE_ITERATION):
        bar = Bar(10, 25) if peer == DEFAULT else None
        note = run.beside(PROJECTION, peer)
        yield speed_up("P5", quantity, run.timings, ours=PROJECTION, peer=peer, bar=bar, note=note)


def p6(settings: Settings) -> Iterator[Row]:
    """HOOI in as few sweeps as end within 1e-3 of tensorly's error, and as we factorise."""
    run = _measured(settings)
    shipped, near = f"HOOI, {HOOI_SWEEPS} sweeps", f"HOOI, {run.sweeps} sweeps"
    for ours in dict.fromkeys((near, shipped)):
        note = run.beside(ours, DEFAULT)
        note += ", the sweeps of our final factorisation" if ours == shipped else ""
        yield speed_up(
            "P6",
            "factors of the same layers and ranks to the error of alternating least squares",
            run.timings,
            ours=ours,
            peer=DEFAULT,
            bar=Bar(2, 5) if ours == near else None,
            note=note,
        )


@dataclass(frozen=True)
class Run:
    """Timings and errors |W - Z| / |W| by candidate; `sweeps` is what P6 asks for."""

    layers: int
    sweeps: int
    timings: Mapping[str, Timing]
    errors: Mapping[str, float]

    def beside(self, ours: str, peer: str) -> str:
        """Both errors, and how far they are apart."""
        mine, theirs = self.errors[ours], self.errors[peer]
        return f"relative error {mine:.4f} beside {theirs:.4f}, {mine - theirs:+.1e}"


@functools.cache
def _measured(settings: Settings) -> Run:
    """P5 and P6 together: tensorly takes long, and one run of it serves both."""
    problem = Problem.of(Subject.of("resnet18_cifar", seed=settings.seed))
    peers = _tensorly()
    errors = {name: problem.error(problem.run(peer)) for name, peer in peers.items()}
    ours = {PROJECTION: _ours(0), f"HOOI, {HOOI_SWEEPS} sweeps": _ours(HOOI_SWEEPS)}
    sweeps = _enough_sweeps(problem, errors[DEFAULT])
    ours[f"HOOI, {sweeps} sweeps"] = _ours(sweeps)
    errors |= {name: problem.error(problem.run(mine)) for name, mine in ours.items()}
    runs = {name: partial(problem.run, each) for name, each in (ours | peers).items()}
    timings = interleave(runs, seconds=settings.seconds, warmup=0)
    return Run(len(problem.weights), sweeps, timings, errors)


def _enough_sweeps(problem: Problem, error: float) -> int:
    """The fewest sweeps that end within 1e-3 of `error`, or the most that are tried."""
    for sweeps in range(1, MOST_SWEEPS):
        if problem.error(problem.run(_ours(sweeps))) <= error + LARGEST_EXCESS:
            return sweeps
    return MOST_SWEEPS


def _ours(sweeps: int) -> Decompose:
    return partial(tucker2, hooi_sweeps=sweeps)


def _tensorly() -> dict[str, Decompose]:
    """tensorly on numpy, its default, with its default settings and with one iteration."""
    try:
        from tensorly.decomposition import partial_tucker  # noqa: PLC0415
    except ImportError as missing:
        raise Unavailable("tensorly is missing; run `make bench`") from missing

    def decompose(weight: Tensor, ranks: Ranks, **settings: int) -> Tucker2:
        found, _ = partial_tucker(weight.numpy(), rank=list(ranks), modes=[0, 1], **settings)
        core, factors = found
        return Tucker2(*map(torch.from_numpy, (core, *factors)))

    return {DEFAULT: decompose, ONE_ITERATION: partial(decompose, n_iter_max=1)}
