"""P7: choosing all ranks once the spectra are known, beside computing the spectra."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.harness import Settings, interleave
from benchmarks.networks import Subject
from benchmarks.rows import Bar, Row
from cstar_core.ranks import candidates, energy_plan, spectra, uniform_plan

RATIO, MULTIPLE = 8.0, 8
SPECTRA, STRATEGY = "Gram + eigh", "energy, ranks of any size"


def p7(settings: Settings) -> Iterator[Row]:
    """Each strategy, and all candidates together, as a share of the time of Gram and eigh."""
    subject = Subject.of("resnet18_cifar", seed=settings.seed)
    budgets = [subject.inventory.budget(RATIO)]
    tables = spectra(subject.network, subject.layers)
    arguments = (subject.inventory, tables, budgets)
    every_plan = partial(candidates, subject.network, subject.layers, budgets, tables=tables)
    runs: dict[str, Callable[[], object]] = {
        SPECTRA: partial(_gram_and_eigh, _unfoldings(subject)),
        STRATEGY: partial(energy_plan, *arguments),
        "energy, multiples of 8": partial(energy_plan, *arguments, multiple=MULTIPLE),
        "uniform, multiples of 8": partial(uniform_plan, *arguments, multiple=MULTIPLE),
        "all candidates, ranks of any size": every_plan,
    }
    timings = interleave(runs, seconds=settings.seconds)
    for name in list(runs)[1:]:
        yield Row(
            "P7",
            "ranks of ResNet-18 at 8x, spectra given",
            name,
            SPECTRA,
            100 * timings[name].median_ms / timings[SPECTRA].median_ms,
            unit="%",
            bar=Bar(20, 2, smaller_is_better=True) if name == STRATEGY else None,
            timings={key: timings[key] for key in (name, SPECTRA)},
        )


def _unfoldings(subject: Subject) -> list[Tensor]:
    """Both unfoldings of every weight that may be factorised, in float64."""
    weights = [
        subject.network.get_parameter(f"{layer.name}.weight").detach().double()
        for layer in subject.layers
        if not layer.is_stem
    ]
    return [weight.transpose(0, mode).flatten(1) for weight in weights for mode in (0, 1)]


def _gram_and_eigh(unfoldings: list[Tensor]) -> None:
    for unfolding in unfoldings:
        torch.linalg.eigh(unfolding @ unfolding.T)
