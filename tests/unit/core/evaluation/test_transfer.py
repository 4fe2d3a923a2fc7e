from __future__ import annotations

import json

import torch

from cstar_core.attacks import ThreatModel
from cstar_core.evaluation.attacks.robustness import PgdSettings, clean_correct, pgd_correct
from cstar_core.evaluation.attacks.transfer import transfer_correct
from cstar_core.evaluation.batches import BatchDone, Record

from .classifiers import convolutional, predicted, problem

THREAT = ThreatModel("linf", 0.03)


def test_what_breaks_a_network_breaks_its_twin() -> None:
    model = convolutional()
    images, labels = predicted(model)
    transferred = transfer_correct(convolutional(), model, images, labels, THREAT, seed=0)
    white_box = pgd_correct(model, images, labels, THREAT, seed=0)
    assert 0 < int(transferred.sum()) < len(images)
    # The last iterate alone is shown, where the white-box attack has the worst of all.
    assert not (white_box & ~transferred).sum() > 1


def test_a_linear_model_falls_to_its_own_images_exactly() -> None:
    model, images, labels, threat, robust = problem("l2", n=20)
    settings = PgdSettings(steps=50, loss="margin", restarts=2)
    verdict = transfer_correct(model, model, images, labels, threat, settings=settings, seed=0)
    assert torch.equal(verdict, robust)


def test_images_of_a_stranger_break_fewer() -> None:
    model, stranger = convolutional(), convolutional(seed=9)
    images, labels = predicted(model)
    own, others = (
        transfer_correct(source, model, images, labels, THREAT, seed=0)
        for source in (model, stranger)
    )
    assert int(others.sum()) > int(own.sum())


def test_what_the_target_gets_wrong_unattacked_counts_as_broken() -> None:
    model, images, labels, threat, _ = problem("linf", n=20)
    clean = clean_correct(model, images, labels)
    assert not clean.all()
    verdict = transfer_correct(model, model, images, labels, threat, seed=0)
    assert not (verdict & ~clean).any()


def test_an_interrupted_transfer_gives_the_same_verdicts() -> None:
    model, source = convolutional(), convolutional(seed=9)
    images, labels = predicted(model)
    whole: dict[str, Record] = {}
    reference = transfer_correct(
        source, model, images, labels, THREAT, seed=0, batch_size=16, completed=whole
    )
    heard: list[BatchDone] = []
    resumed = transfer_correct(
        source,
        model,
        images,
        labels,
        THREAT,
        seed=0,
        batch_size=16,
        completed=json.loads(json.dumps({"0": whole["0"]})),
        on_batch=heard.append,
    )
    assert torch.equal(resumed, reference)
    assert [batch.done for batch in heard] == [2, 3]
