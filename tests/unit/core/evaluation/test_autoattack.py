from __future__ import annotations

import json
import logging
import sys
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cstar_core.attacks import Norm, ThreatModel
from cstar_core.evaluation.attacks import autoattack
from cstar_core.evaluation.attacks.autoattack import (
    autoattack_correct,
    estimate_seconds,
)
from cstar_core.evaluation.attacks.autoattack_library import square_runs, suite_for, suite_settings
from cstar_core.evaluation.attacks.result import AttackResult
from cstar_core.evaluation.attacks.robustness import pgd_correct
from cstar_core.evaluation.batches import BatchDone, Record

from .classifiers import convolutional, linear, predicted, problem

THREAT = ThreatModel("linf", 0.05)


@pytest.mark.parametrize(
    ("norm", "classes"), [("linf", 5), ("l2", 5), ("linf", 2), ("linf", 3), ("linf", 12)]
)
def test_the_exact_robust_accuracy_of_a_linear_model_is_found(norm: Norm, classes: int) -> None:
    model, images, labels, threat, robust = problem(norm, classes=classes, n=8)
    result = autoattack_correct(model, images, labels, threat, seed=0)
    assert torch.equal(result.robust, robust)


@pytest.fixture(scope="module")
def attacked() -> tuple[
    nn.Module, Tensor, Tensor, AttackResult, dict[str, Record], list[BatchDone]
]:
    model = convolutional()
    images, labels = predicted(model, n=12)
    labels[0] = (labels[0] + 1) % 4
    completed: dict[str, Record] = {}
    heard: list[BatchDone] = []
    result = autoattack_correct(
        model,
        images,
        labels,
        ThreatModel("linf", 0.025),
        seed=3,
        batch_size=8,
        completed=completed,
        on_batch=heard.append,
    )
    return model, images, labels, result, completed, heard


def test_autoattack_is_never_weaker_than_pgd(attacked: Any) -> None:
    model, images, labels, result, *_ = attacked
    by_pgd = pgd_correct(model, images, labels, ThreatModel("linf", 0.025), seed=0)
    assert 0 < int(result.robust.sum()) < 12
    assert not (result.robust & ~by_pgd).any()


def test_a_misclassified_image_is_neither_clean_nor_robust(attacked: Any) -> None:
    result = attacked[3]
    assert result.clean.tolist() == [False] + [True] * 11
    assert not result.robust[0]


def test_every_broken_image_is_counted_by_the_attack_that_broke_it(attacked: Any) -> None:
    result = attacked[3]
    assert sum(result.broken_by.values()) == int((result.clean & ~result.robust).sum())


def test_progress_is_told_per_batch_and_attack(attacked: Any) -> None:
    heard = attacked[5]
    assert [batch.name for batch in heard[:5]] == [
        "0/apgd-ce",
        "0/apgd-t",
        "0/fab-t",
        "0/square",
        "1/apgd-ce",
    ]
    assert [batch.done for batch in heard] == list(range(1, 9))
    assert {batch.total for batch in heard} == {8}


def test_an_interrupted_evaluation_gives_the_same_verdicts(attacked: Any) -> None:
    model, images, labels, result, completed, _ = attacked
    partly = json.loads(json.dumps(completed))
    for name in ("1/fab-t", "1/square"):
        del partly[name]
    heard: list[BatchDone] = []
    resumed = autoattack_correct(
        model,
        images,
        labels,
        ThreatModel("linf", 0.025),
        seed=3,
        batch_size=8,
        completed=partly,
        on_batch=heard.append,
    )
    assert torch.equal(resumed.robust, result.robust)
    assert resumed.broken_by == result.broken_by
    assert [batch.done for batch in heard] == [7, 8]


def test_a_result_is_json_with_everything_needed_to_repeat_it(attacked: Any) -> None:
    stored = json.loads(json.dumps(attacked[3].to_json()))
    assert stored["n"] == 12
    assert stored["clean"]["value"] == pytest.approx(11 / 12)
    assert stored["settings"]["suite"] == "autoattack-standard"
    assert stored["settings"]["seed"] == 3
    assert stored["settings"]["threat"] == {"norm": "linf", "epsilon": 0.025}
    assert stored["settings"]["library_version"].startswith("0.2")


def tiny() -> tuple[nn.Module, Tensor, Tensor]:
    """Images that APGD breaks at once, so that an evaluation is quick."""
    model = linear(5)
    images = torch.full((3, 1, 8, 8), 0.5)
    return model, images, model(images).argmax(1)


def test_the_global_generator_and_the_trace_function_are_given_back() -> None:
    def trace(frame: FrameType, event: str, argument: object) -> None:
        return None

    problem_ = tiny()
    previous = sys.gettrace()
    before = torch.random.get_rng_state()
    sys.settrace(trace)
    try:
        autoattack_correct(*problem_, THREAT, seed=0)
        assert sys.gettrace() is trace
    finally:
        sys.settrace(previous)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_model_is_given_back_as_it_was() -> None:
    model, images, labels = tiny()
    model.train()
    autoattack_correct(model, images, labels, THREAT, seed=0)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_library_prints_and_logs_nothing(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        autoattack_correct(nn.Sequential(linear(5), nn.Softmax(1)), *tiny()[1:], THREAT, seed=0)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_a_model_that_returns_probabilities_is_flagged() -> None:
    model = nn.Sequential(linear(5), nn.Softmax(1))
    result = autoattack_correct(model, *tiny()[1:], THREAT, seed=0)
    assert "softmax_output" in result.flags


def test_the_heartbeat_is_heard_at_every_forward_pass() -> None:
    beats: list[None] = []
    autoattack_correct(*tiny(), THREAT, seed=0, heartbeat=lambda: beats.append(None))
    assert len(beats) > 100


@pytest.mark.parametrize(
    ("classes", "name", "targets"),
    [
        (2, "apgd-ce+fab+square", 1),
        (3, "apgd-ce+fab+square", 2),
        (4, "autoattack-standard", 3),
        (10, "autoattack-standard", 9),
        (100, "autoattack-standard", 9),
    ],
)
def test_only_the_standard_suite_is_called_standard(classes: int, name: str, targets: int) -> None:
    suite = suite_for(classes)
    assert (suite.name, suite.targets) == (name, targets)


def test_one_class_is_no_classifier() -> None:
    with pytest.raises(ValueError, match="at least 2 classes"):
        suite_for(1)


def test_the_settings_of_the_standard_suite_are_those_of_its_paper() -> None:
    settings = suite_settings(suite_for(10), THREAT, seed=0, batch_size=64)
    assert settings["attacks"] == {
        "apgd-ce": {"n_iter": 100, "n_restarts": 1},
        "apgd-t": {"n_iter": 100, "n_restarts": 1, "n_target_classes": 9},
        "fab-t": {"n_iter": 100, "n_restarts": 1, "n_target_classes": 9},
        "square": {"n_queries": 5000, "n_restarts": 1, "p_init": 0.8},
    }


def test_an_epsilon_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        autoattack_correct(*tiny(), ThreatModel("linf", 0.0), seed=0)


def test_the_estimate_grows_with_the_examples_and_shrinks_with_the_survivors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = convolutional()
    images, _ = predicted(model, n=32)
    monkeypatch.setattr(autoattack, "_timed", lambda _part, images, _labels: float(len(images)))

    def estimate(n: int, robust_fraction: float) -> float:
        fraction = {"robust_fraction": robust_fraction, "batch_size": 8}
        return estimate_seconds(model, images[:n], THREAT, **fraction)

    whole = estimate(32, 1.0)
    assert estimate(16, 1.0) == pytest.approx(whole / 2)
    assert estimate(32, 0.5) == pytest.approx(whole / 2)
    assert whole > 0


@pytest.mark.parametrize("side", [4, 5, 8, 12, 13, 19])
def test_l2_runs_on_images_of_any_side_and_is_standard_only_with_square(side: int) -> None:
    images = torch.rand(2, 1, side, side, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Flatten(), nn.Linear(side * side, 4)).eval()
    labels = model(images).argmax(1)
    threat = ThreatModel("l2", 5.0)  # broken at once
    found = autoattack_correct(model, images, labels, threat, seed=0)
    standard = found.settings["suite"] == "autoattack-standard"

    assert standard == square_runs(threat, images) == (side in (5, 8, 13))
    assert ("square" in found.broken_by) == standard
    assert estimate_seconds(model, images, threat) > 0
