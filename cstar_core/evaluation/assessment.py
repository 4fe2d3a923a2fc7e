"""Everything a report says of one network, measured in pieces that can be resumed.

A piece is a name, about the share of the time it takes, and a function of the network, of what
earlier pieces found, and of its ledger. To measure something more, write a piece and list it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cstar_core.evaluation.attacks.autoattack import autoattack_correct, estimate_seconds
from cstar_core.evaluation.attacks.curve import epsilon_curve
from cstar_core.evaluation.attacks.named import worst_case
from cstar_core.evaluation.attacks.planted import planted_test
from cstar_core.evaluation.attacks.robustness import Watched, class_count, pgd_correct, predict
from cstar_core.evaluation.attacks.steps import steps_check
from cstar_core.evaluation.batches import Record
from cstar_core.evaluation.certified import certification, invariant
from cstar_core.evaluation.corruptions.accuracy import SMALLEST_SIDE, corruption_accuracy
from cstar_core.evaluation.corruptions.jpeg import (
    CHANNELS,
    QUALITY,
    jpeg_attacked_correct,
    jpeg_settings,
)
from cstar_core.evaluation.examples import Examples
from cstar_core.evaluation.reliability import (
    Flag,
    consistency_flags,
    curve_flags,
    invariant_flags,
    library_flags,
    model_flags,
    planted_flags,
    square_flags,
    steps_flags,
)
from cstar_core.evaluation.settings import BATCH, PGD, PGD_THROUGH_JPEG, EvaluationSettings
from cstar_core.evaluation.statistics import Accuracy
from cstar_core.evaluation.watch import Meter, Watch

Ledgers = MutableMapping[str, Any]
"""Finished parts of the pieces, by piece: plain data, to be kept in a checkpoint."""


@dataclass(frozen=True)
class Subject:
    """A network under evaluation, by its name in the report, with what it is evaluated on.

    `model` takes images in [0, 1]; `test` is the whole test split.
    """

    name: str
    model: nn.Module
    test: Examples
    settings: EvaluationSettings
    class_names: tuple[str, ...] | None = None

    @cached_property
    def rows(self) -> Tensor:
        """Which rows of the test split are attacked, (n,) int64."""
        return self.settings.attacked_index(len(self.test))

    @cached_property
    def attacked(self) -> Examples:
        """The examples that are attacked."""
        return self.test.take(self.rows.to(self.test.labels.device))

    @property
    def headline(self) -> Examples:
        """The examples of AutoAttack, whose figure is the headline."""
        return self.attacked.first(self.settings.autoattack_examples)

    def watched(self, meter: Meter) -> nn.Module:
        """The network, which shows life at every forward pass."""
        return Watched(self.model, meter.heartbeat)

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
        return described | {"curve_settings": PGD.to_json(), "flags": flags}


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
            watch.event("evaluation.finished", told(subject.name, measured.described))
        done += share * piece.share
    return Assessment(predictions, found)


def figure(name: str, verdict: Tensor) -> dict[str, Any]:
    """An accuracy as a report states it: with n, its interval, and a label where n is small."""
    accuracy = Accuracy.of(verdict)
    label = {"label": "screening"} if accuracy.screening else {}
    return {"name": name, "correct": accuracy.correct, **accuracy.to_json(), **label}


def told(model: str, described: Mapping[str, Any]) -> dict[str, Any]:
    """What an event says of a finished figure."""
    shown = {name: described[name] for name in ("value", "n", "interval")}
    return {"model": model, "attack": described["name"]} | shown


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
        subject.watched(meter),
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
    examples = subject.headline
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
    flags = square_flags(result.broken_by, len(examples)) + library_flags(result.flags)
    flags += consistency_flags(verdict, _verdict(found, "pgd")[: len(examples)])
    return Measurement(described, verdict, tuple(flags))


def _worst_case(subject: Subject, found: Found, _: dict[str, Record], __: Meter) -> Measurement:
    """Per example of the headline, over every white-box attack that saw it."""
    count = len(subject.headline)
    verdict = worst_case(_verdict(found, "autoattack"), _verdict(found, "pgd")[:count])
    longer = _verdict(found, "steps")[:count]  # perhaps on fewer examples
    verdict[: len(longer)] &= longer
    attacks = [found[piece].described["name"] for piece in ("autoattack", "pgd", "steps")]
    return Measurement(figure("worst case", verdict) | {"attacks": attacks}, verdict)


def _steps(subject: Subject, found: Found, ledger: dict[str, Record], meter: Meter) -> Measurement:
    examples = subject.probe
    check = steps_check(
        subject.watched(meter),
        examples.images,
        examples.labels,
        subject.settings.threat,
        _verdict(found, "pgd")[: len(examples)],
        few=PGD,
        seed=subject.settings.attack_seed,
        batch_size=BATCH,
        completed=ledger,
        on_batch=meter,
    )
    verdict = check.many_correct.cpu()
    flags = steps_flags(check.few_correct, check.many_correct)
    return Measurement(figure(check.many.name, verdict) | check.to_json(), verdict, tuple(flags))


def _planted(subject: Subject, _: Found, ledger: dict[str, Record], meter: Meter) -> Measurement:
    result = planted_test(
        subject.watched(meter),
        subject.probe.images,
        subject.probe.labels,
        subject.settings.threat,
        seed=subject.settings.attack_seed,
        completed=ledger,
        on_batch=meter,
    )
    return Measurement(result.to_json(), flags=tuple(planted_flags(result)))


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
        subject.watched(meter),
        subject.probe.images,
        subject.probe.labels,
        subject.settings.threat,
        settings=PGD,
        seed=subject.settings.attack_seed,
        batch_size=BATCH,
        completed=ledger,
        on_batch=meter,
    )
    flags = curve_flags(points, classes=class_count(subject.model, subject.test.images))
    return Measurement([point.to_json() for point in points], flags=tuple(flags))


def _corruptions(
    subject: Subject, _: Found, ledger: dict[str, Record], meter: Meter
) -> Measurement:
    images = subject.probe.images
    if min(images.shape[2:]) < SMALLEST_SIDE:
        return _skipped(f"images have sides of less than {SMALLEST_SIDE} pixels")
    result = corruption_accuracy(
        subject.watched(meter),
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
        subject.watched(meter),
        subject.probe.images,
        subject.probe.labels,
        subject.settings.threat,
        settings=PGD_THROUGH_JPEG,
        seed=subject.settings.attack_seed,
        batch_size=BATCH,
        completed=ledger,
        on_batch=meter,
    ).cpu()
    settings = jpeg_settings(PGD_THROUGH_JPEG)
    described = figure(settings["name"], verdict) | {"quality": QUALITY, "settings": settings}
    return Measurement(described | {"skipped": None}, verdict)


def _certified(
    subject: Subject, found: Found, ledger: dict[str, Record], meter: Meter
) -> Measurement:
    """The lower row: what is proven on the examples of the headline."""
    examples = subject.headline
    result = certification(
        subject.model,
        examples.images,
        examples.labels,
        subject.settings.threat,
        completed=ledger,
        on_batch=meter,
    )
    attacked = _verdict(found, "worst_case")
    # without bounds nothing is proven, and attacked <= clean is checked all the same
    proven = torch.zeros_like(attacked) if result.certified is None else result.certified.cpu()
    clean = _verdict(found, "clean")[subject.rows[: len(examples)]]
    relation = invariant(proven, attacked, clean)
    described = result.to_json() | {
        "invariant": {
            "name": "certified <= attacked <= clean",
            "holds": relation.holds,
            "detail": relation.detail,
        }
    }
    verdict = None if result.certified is None else proven
    return Measurement(described, verdict, tuple(invariant_flags(relation)))


def _per_class(subject: Subject, found: Found, __: dict[str, Record], ___: Meter) -> Measurement:
    """Clean accuracy of every class that has test images."""
    labels, verdict = subject.test.labels.cpu(), _verdict(found, "clean")
    rows = []
    for label in sorted(set(labels.tolist())):
        accuracy = Accuracy.of(verdict[labels == label])
        name = subject.class_names[label] if subject.class_names else None
        named = {"class": label, "name": name, "n": accuracy.n}
        rows.append(named | {"correct": accuracy.correct, "value": accuracy.value})
    return Measurement(rows)


def _skipped(why: str) -> Measurement:
    return Measurement({"skipped": why})


PIECES = (
    Piece("pgd", 0.1, _pgd),
    Piece("autoattack", 0.5, _autoattack),
    Piece("steps", 0.07, _steps),
    Piece("worst_case", 0.0, _worst_case),
    Piece("certified", 0.0, _certified),
    Piece("curve", 0.15, _curve),
    Piece("planted", 0.08, _planted),
    Piece("corruptions", 0.04, _corruptions),
    Piece("through_jpeg", 0.06, _through_jpeg),
    Piece("per_class", 0.0, _per_class),
)
