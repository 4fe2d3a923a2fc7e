from __future__ import annotations

import pytest
import torch
from torch import nn

from cstar_core.attacks import ThreatModel
from cstar_core.evaluation.attacks.robustness import PgdSettings
from cstar_core.training.selection import HeldOutSelection, Score, select_best

from .problems import config, dataset, finish, network, trainer


def test_the_most_robust_epoch_is_selected() -> None:
    scores = {0: Score(0.3, 0.9), 1: Score(0.5, 0.6), 2: Score(0.4, 0.8)}
    assert select_best(scores) == 1


def test_ties_are_broken_by_clean_accuracy() -> None:
    assert select_best({0: Score(0.5, 0.6), 1: Score(0.5, 0.7), 2: Score(0.5, 0.65)}) == 1


def test_of_equal_scores_the_earliest_epoch_is_selected() -> None:
    assert select_best({2: Score(0.5, 0.6), 1: Score(0.5, 0.6)}) == 1


def test_nothing_can_be_selected_from_no_scores() -> None:
    with pytest.raises(ValueError, match="no epoch"):
        select_best({})


class Constant(nn.Module):
    """Predicts one class, whatever the image."""

    def __init__(self, label: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.eye(3)[label])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(x), -1) + 0 * x.flatten(1).sum(1, keepdim=True)


def test_the_weights_of_the_best_epoch_are_kept() -> None:
    images, _ = dataset(12)
    labels = torch.tensor([0] * 2 + [1] * 7 + [2] * 3)
    selection = HeldOutSelection(
        images, labels, ThreatModel("linf", 0.1), seed=0, settings=PgdSettings(steps=1)
    )
    metrics = [selection.epoch_end(epoch, Constant(epoch)) for epoch in range(3)]
    assert [m["held_out_robust_accuracy"] for m in metrics] == pytest.approx([2 / 12, 7 / 12, 0.25])
    assert [m["best_epoch"] for m in metrics] == [1, 2, 2]
    assert torch.equal(selection.best_state["logits"], torch.eye(3)[1])


def test_a_trainer_ends_with_the_weights_of_its_best_epoch() -> None:
    images, labels = dataset(30, seed=5)
    selection = HeldOutSelection(images, labels, ThreatModel("linf", 0.05), seed=0)
    model = network()
    run = trainer(config(epochs=4, ema=0.5), model=model, selection=selection)
    finish(run)
    run.load_best()
    assert selection.score(model) == selection.scores[selection.best_epoch]
