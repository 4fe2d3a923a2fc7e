from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cstar_core.errors import Diverged
from cstar_core.training.config import AttackConfig
from cstar_core.training.progress import EpochEnd, Step

from .problems import THREAT, config, dataset, differences, epoch_ends, finish, network, trainer


class Recorder(nn.Module):
    """A network that remembers the labels' places of the images it was trained on."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.batches: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.training and isinstance(x, Tensor) and not isinstance(x, torch.fx.Proxy):
            self.batches.append(x.detach().clone())
        logits: Tensor = self.inner(x)
        return logits


def test_a_run_yields_every_step_and_an_end_for_every_epoch() -> None:
    events = finish(trainer())
    assert [type(event) for event in events] == [Step, Step, Step, EpochEnd] * 3
    steps = [event for event in events if isinstance(event, Step)]
    assert [(step.epoch, step.step) for step in steps[:4]] == [(0, 1), (0, 2), (0, 3), (1, 1)]
    assert {step.steps_per_epoch for step in steps} == {3}
    assert steps[-1].fraction == 1.0


def test_training_learns_the_problem_under_attack() -> None:
    ends = epoch_ends(trainer(config(epochs=8)))
    assert ends[0].metrics["train_robust_accuracy"] < 0.9
    assert ends[-1].metrics["train_robust_accuracy"] > 0.95
    assert ends[-1].metrics["loss"] < ends[0].metrics["loss"] / 2


def test_equal_seeds_give_equal_weights_and_other_seeds_and_phases_others() -> None:
    def weights(**changes: Any) -> Tensor:
        run = trainer(config(epochs=1), **changes)
        finish(run)
        return torch.cat([p.detach().flatten() for p in run.model.parameters()])

    reference = weights()
    assert torch.equal(weights(), reference)
    assert not torch.equal(weights(seed=1), reference)
    assert not torch.equal(weights(phase="fine-tuning"), reference)


def test_training_does_not_touch_the_global_generator() -> None:
    run = trainer(config(epochs=1, augmentation="crop_flip", attack=AttackConfig("pgd", 2)))
    before = torch.random.get_rng_state()
    finish(run)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_epoch_visits_every_example_once_in_an_order_of_its_own() -> None:
    model = Recorder(network())
    finish(trainer(config(epochs=2, attack=AttackConfig("none")), model=model))
    first, second = torch.cat(model.batches[:3]), torch.cat(model.batches[3:])
    expected = dataset()[0].float() / 255

    def as_set(images: Tensor) -> set[tuple[float, ...]]:
        return {tuple(image.flatten().tolist()) for image in images}

    assert as_set(first) == as_set(second) == as_set(expected)
    assert not torch.equal(first, second)


def test_a_subset_per_epoch_changes_from_epoch_to_epoch() -> None:
    model = Recorder(network())
    settings = config(epochs=2, attack=AttackConfig("none"), examples_per_epoch=16)
    run = trainer(settings, model=model)
    assert run.steps_per_epoch == 1
    finish(run)
    first, second = model.batches
    assert len(first) == len(second) == 16
    assert not torch.equal(first.sort(0).values, second.sort(0).values)


def test_fewer_examples_than_a_batch_make_one_small_batch() -> None:
    run = trainer(config(epochs=1, batch_size=100))
    assert run.steps_per_epoch == 1
    assert len(finish(run)) == 2


def test_weight_decay_spares_vectors_unless_asked() -> None:
    def decays(**changes: Any) -> dict[int, float]:
        groups = trainer(config(weight_decay=0.1, **changes)).optimizer.param_groups
        return {p.dim(): group["weight_decay"] for group in groups for p in group["params"]}

    assert decays() == {4: 0.1, 2: 0.1, 1: 0.0}
    assert decays(weight_decay_on_norm=True) == {4: 0.1, 2: 0.1, 1: 0.1}


def test_gradient_clipping_bounds_the_first_step() -> None:
    def movement(clip: float | None) -> float:
        model = network()
        before = copy.deepcopy(model)
        settings = config(momentum=0.0, weight_decay=0.0, gradient_clip=clip)
        next(trainer(settings, model=model).run())
        pairs = zip(model.parameters(), before.parameters(), strict=True)
        return math.sqrt(sum(float((a - b).detach().square().sum()) for a, b in pairs))

    assert movement(0.01) == pytest.approx(0.05 * 0.01, rel=1e-3)
    assert movement(None) > 0.05 * 0.02


def test_the_learning_rate_follows_its_schedule_step_by_step() -> None:
    run = trainer(config(epochs=2, warmup_epochs=1.0))
    rates = [run.optimizer.param_groups[0]["lr"] for e in run.run() if isinstance(e, Step)]
    assert rates[:3] == pytest.approx([0.05 / 3, 0.1 / 3, 0.05])
    assert rates[3] == pytest.approx(0.05)
    assert rates[5] < rates[4] < rates[3]


def test_a_loss_that_is_not_finite_stops_the_run_and_says_what_to_do() -> None:
    with pytest.raises(Diverged, match="lower the learning rate"):
        finish(trainer(config(learning_rate=1e18)))


def test_the_step_whose_loss_is_not_finite_changes_no_weight() -> None:
    run = trainer()
    with torch.no_grad():
        run.model[7].bias[0] = float("inf")  # type: ignore[index]
    before = copy.deepcopy(list(run.model.parameters()))
    with pytest.raises(Diverged):
        finish(run)
    assert all(torch.equal(a, b) for a, b in zip(run.model.parameters(), before, strict=True))


def test_the_moving_average_is_what_is_evaluated_and_kept() -> None:
    run = trainer(config(ema=0.9))
    finish(run)
    average = run.evaluated_model
    assert average is not run.model
    assert not torch.equal(average[0].weight, run.model[0].weight)  # type: ignore[index]
    run.load_best()
    assert torch.equal(average[0].weight, run.model[0].weight)  # type: ignore[index]


def test_distillation_draws_the_student_to_its_teacher() -> None:
    teacher = network(seed=3)
    finish(trainer(config(epochs=8), model=teacher))
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    images = dataset()[0].float() / 255

    def distance(student: nn.Module) -> float:
        with torch.no_grad():
            target, guess = (m.eval()(images).softmax(1) for m in (teacher, student))
        return float((target - guess).abs().mean())

    student = network(seed=5)
    start = distance(student)
    run = trainer(config(epochs=8, distillation=5 / 6), model=student, teacher=teacher)
    finish(run)
    assert distance(student) < start / 3
    assert all(torch.equal(t, before[name]) for name, t in teacher.state_dict().items())


@pytest.mark.parametrize("given_teacher", [True, False])
def test_a_teacher_and_its_weight_come_together(given_teacher: bool) -> None:
    settings = config(distillation=None if given_teacher else 0.5)
    with pytest.raises(ValueError, match="teacher"):
        trainer(settings, teacher=network() if given_teacher else None)


def test_images_without_labels_are_refused() -> None:
    images, labels = dataset()
    run = trainer()
    with pytest.raises(ValueError, match="one label each"):
        type(run)(
            run.model,
            images,
            labels[:5],
            threat=THREAT,
            config=run.config,
            seed=0,
            phase="test",
        )


def test_no_epochs_is_a_run_without_events() -> None:
    assert finish(trainer(config(epochs=0))) == []


def test_early_epochs_use_the_early_attack_and_later_ones_do_not() -> None:
    def run(**changes: Any) -> Any:
        return trainer(config(epochs=2, schedule="constant", **changes))

    pgd, single = AttackConfig("pgd", 2), AttackConfig("n-fgsm")
    switching = run(attack=pgd, early_attack=single, early_share=0.5)
    only_single, only_pgd = run(attack=single), run(attack=pgd)
    for now, first in zip(switching.run(), only_single.run(), strict=True):
        same = differences(switching.state_dict()["model"], only_single.state_dict()["model"])
        assert (same == []) == (now.epoch == 0), first
    finish(only_pgd)
    assert differences(switching.state_dict()["model"], only_pgd.state_dict()["model"]) != []


def test_dropout_draws_from_the_seed_of_the_run_and_not_from_the_process() -> None:
    def weights(process_seed: int) -> Any:
        torch.manual_seed(process_seed)
        model = network()
        model.insert(7, nn.Dropout(0.5))
        run = trainer(config(epochs=1), model=model)
        before = torch.random.get_rng_state()
        finish(run)
        assert torch.equal(torch.random.get_rng_state(), before)
        return run.state_dict()

    assert differences(weights(1), weights(2)) == []


@pytest.mark.parametrize("objective", ["trades", "mart"])
def test_training_learns_the_problem_by_either_objective(objective: str) -> None:
    ends = epoch_ends(trainer(config(epochs=8, objective=objective, beta=2.0)))
    assert ends[-1].metrics["train_robust_accuracy"] > 0.95
