"""Everything a report says of one network, measured in pieces that can be resumed.

A piece is a name, about the share of the time it takes, and a function of the network, of what
earlier pieces found, and of its ledger. To measure something more, write a piece and list it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cstar_core.evaluation.autoattack import autoattack_correct, estimate_seconds
from cstar_core.evaluation.batches import Record, unit_interval
from cstar_core.evaluation.corruptions import SMALLEST_SIDE, corruption_accuracy
from cstar_core.evaluation.curve import epsilon_curve
from cstar_core.evaluation.examples import Examples
from cstar_core.evaluation.jpeg import CHANNELS, QUALITY, jpeg_attacked_correct, jpeg_settings
from cstar_core.evaluation.reliability import (
    Flag,
    curve_flags,
    model_flags,
    square_flags,
)
from cstar_core.evaluation.robustness import pgd_correct, predict
from cstar_core.evaluation.settings import BATCH, PGD, EvaluationSettings
from cstar_core.evaluation.statistics import Accuracy
from cstar_core.evaluation.watch import Meter, Watch

Ledgers = MutableMapping[str, Any]
"""Finished parts of the pieces, by piece: plain data, to be kept in a checkpoint."""


@dataclass(frozen=True)
class Subject:
    """A network under evaluation, by its name in the report, with what it is evaluated on.

    `model` takes images in [0, 1]; `test` is the whole test split, `attacked` the chosen part.
    """

    name: str
    model: nn.Module
    test: Examples
    attacked: Examples
    settings: EvaluationSettings
    class_names: tuple[str, ...] | None = None

    @property
    def classes(self) -> int:
        """How many classes the network tells apart."""
        with torch.no_grad():
            return int(self.model(unit_interval(self.test.images[:1])).shape[1])

    @property
    def probe(self) -> Examples:
        """The examples of the measures beside the headline figures."""
        return self.attacked.first(self.settings.probe_examples)


@dataclass(frozen=True)
class Measurement:
    """What a piece found: JSON data, a verdict per example where it gives one, and flags."""

    described: Any
    verdict: Tensor | None = None
    flags: tuple[Flag, ...] = ()


Found = Mapping[str, Measurement]
Measure = Callable[[Subject, Found, Any, Meter], Measurement]


class Piece(NamedTuple):
    """A part of the assessment; `share` is about its part of the time."""

    name: str
    share: float
    measure: Measure


@dataclass(frozen=True)
class Assessment:
    """All pieces of one network; `predictions` (N,) int64 are those on the whole test split."""

    predictions: Tensor
    found: Found

    def verdict(self, piece: str) -> Tensor:
        """One bool per example of that piece, (n,)."""
        return _verdict(self.found, piece)

    def to_json(self) -> dict[str, Any]:
        """The assessment as a report has it."""
        described = {name: found.described for name, found in self.found.items()}
        flags = [flag.to_json() for found in self.found.values() for flag in found.flags]
        return described | {"flags": flags}


def assess(
    subject: Subject, ledgers: Ledgers, watch: Watch, *, start: float = 0.0, share: float = 1.0
) -> Assessment:
    """Measure every piece of `subject`, `share` of a whole evaluation from `start` on.

    Parts that `ledgers` holds already are recalled, not measured again.
    """
    predictions = _predictions(subject, ledgers)
    found: dict[str, Measurement] = {"clean": _clean(subject, predictions)}
    done = start
    for piece in PIECES:
        ledger = ledgers.setdefault(piece.name, {})
        known = len(ledger)
        meter = Meter(watch, start=done, share=share * piece.share)
        meter.heartbeat()
        found[piece.name] = measured = piece.measure(subject, found, ledger, meter)
        if len(ledger) > known and measured.verdict is not None:  # not merely recalled
            told = {"model": subject.name, "attack": measured.described["name"]}
            accuracy = Accuracy.of(measured.verdict).to_json()
            watch.event("evaluation.finished", told | accuracy)
        done += share * piece.share
    return Assessment(predictions, found)


def figure(name: str, verdict: Tensor) -> dict[str, Any]:
    """An accuracy as a report states it: with n, its interval, and a label where n is small."""
    accuracy = Accuracy.of(verdict)
    label = {"label": "screening"} if accuracy.screening else {}
    return {"name": name, "correct": accuracy.correct, **accuracy.to_json(), **label}


def _verdict(found: Found, piece: str) -> Tensor:
    verdict = found[piece].verdict
    assert verdict is not None, f"{piece} gives no verdict"
    return verdict


def _predictions(subject: Subject, ledgers: Ledgers) -> Tensor:
    if "predictions" not in ledgers:
        found = predict(subject.model, subject.test.images, batch_size=BATCH)
        ledgers["predictions"] = found.tolist()
    return torch.tensor(ledgers["predictions"])


def _clean(subject: Subject, predictions: Tensor) -> Measurement:
    verdict = predictions == subject.test.labels.cpu()
    sample = subject.attacked.first(BATCH)
    flags = model_flags(subject.model, sample.images, sample.labels)
    return Measurement(figure("clean", verdict), verdict, tuple(flags))


def _pgd(subject: Subject, _: Found, ledger: dict[str, Record], meter: Meter) -> Measurement:
    verdict = pgd_correct(
        subject.model,
        subject.attacked.images,
        subject.attacked.labels,
        subject.settings.threat,
        settings=PGD,
        seed=subject.settings.attack_seed,
        batch_size=BATCH,
        completed=ledger,
        on_batch=meter,
    ).cpu()
    return Measurement(figure(PGD.name, verdict) | {"settings": PGD.to_json()}, verdict)


def _autoattack(
    subject: Subject, found: Found, ledger: dict[str, Record], meter: Meter
) -> Measurement:
    examples = subject.attacked.first(subject.settings.autoattack_examples)
    if not ledger:
        _tell_estimate(subject, examples, _verdict(found, "pgd"), meter)
    result = autoattack_correct(
        subject.model,
        examples.images,
        examples.labels,
        subject.settings.threat,
        seed=subject.settings.attack_seed,
        completed=ledger,
        on_batch=meter,
        heartbeat=meter.heartbeat,
    )
    verdict = result.robust.cpu()
    described = result.to_json() | figure(result.settings["suite"], verdict)
    flags = square_flags(result.broken_by, len(examples))
    return Measurement(described, verdict, tuple(flags))


def _tell_estimate(subject: Subject, examples: Examples, pgd: Tensor, meter: Meter) -> None:
    """Say how long the longest piece will take, before it starts."""
    seconds = estimate_seconds(
        subject.model,
        examples.images,
        subject.settings.threat,
        robust_fraction=float(pgd[: len(examples)].float().mean()),
    )
    told = {"model": subject.name, "attack": "autoattack", "seconds": round(seconds, 1)}
    meter.event("evaluation.estimated", told | {"n": len(examples)})


def _curve(subject: Subject, _: Found, ledger: dict[str, Any], meter: Meter) -> Measurement:
    points = epsilon_curve(
        subject.model,
        subject.probe.images,
        subject.probe.labels,
        subject.settings.threat,
        settings=PGD,
        seed=subject.settings.attack_seed,
        batch_size=BATCH,
        completed=ledger,
        on_batch=meter,
    )
    flags = curve_flags(points, classes=subject.classes)
    return Measurement([point.to_json() for point in points], flags=tuple(flags))


def _corruptions(
    subject: Subject, _: Found, ledger: dict[str, Record], meter: Meter
) -> Measurement:
    images = subject.probe.images
    if min(images.shape[2:]) < SMALLEST_SIDE:
        return _skipped(f"images have sides of less than {SMALLEST_SIDE} pixels")
    result = corruption_accuracy(
        subject.model,
        images,
        subject.probe.labels,
        seed=subject.settings.attack_seed,
        batch_size=BATCH,
        completed=ledger,
        on_batch=meter,
    )
    return Measurement(result.to_json() | {"skipped": None})


def _through_jpeg(
    subject: Subject, _: Found, ledger: dict[str, Record], meter: Meter
) -> Measurement:
    channels = subject.probe.images.shape[1]
    if channels not in CHANNELS:
        return _skipped(f"JPEG takes 1 or 3 channels, the images have {channels}")
    verdict = jpeg_attacked_correct(
        subject.model,
        subject.probe.images,
        subject.probe.labels,
        subject.settings.threat,
        settings=PGD,
        seed=subject.settings.attack_seed,
        batch_size=BATCH,
        completed=ledger,
        on_batch=meter,
    ).cpu()
    settings = jpeg_settings(PGD)
    described = figure(settings["name"], verdict) | {"quality": QUALITY, "settings": settings}
    return Measurement(described | {"skipped": None}, verdict)


def _skipped(why: str) -> Measurement:
    return Measurement({"skipped": why})


PIECES = (
    Piece("pgd", 0.1, _pgd),
    Piece("autoattack", 0.55, _autoattack),
    Piece("curve", 0.15, _curve),
    Piece("corruptions", 0.05, _corruptions),
    Piece("through_jpeg", 0.15, _through_jpeg),
)
