from __future__ import annotations

import functools
import io
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cstar_core.evaluation.attacks.robustness import PgdSettings
from cstar_core.training.admm import Admm, AdmmConfig
from cstar_core.training.config import AttackConfig, AwpConfig
from cstar_core.training.loop import AdversarialTrainer
from cstar_core.training.selection import HeldOutSelection

from .problems import THREAT, config, dataset, differences, finish, flat, network, trainer

Make = Callable[[], AdversarialTrainer]
EVENTS = 8  # two epochs of three steps and an end


def rank_one(weight: Tensor) -> Tensor:
    u, s, v = torch.linalg.svd(weight.flatten(1), full_matrices=False)
    nearest: Tensor = (s[0] * torch.outer(u[:, 0], v[0])).view_as(weight)
    return nearest


def plain() -> AdversarialTrainer:
    return trainer(config(epochs=2, augmentation="crop_flip", attack=AttackConfig("pgd", 2)))


def with_everything() -> AdversarialTrainer:
    """Moving average, ADMM, distillation, selection and a new subset each epoch."""
    model = network()
    layer = model[3]
    assert isinstance(layer, nn.Conv2d)
    images, labels = dataset(12, seed=9)
    return trainer(
        config(
            epochs=2,
            ema=0.9,
            distillation=0.8,
            gradient_clip=1.0,
            examples_per_epoch=40,
            batch_size=13,
            warmup_epochs=0.5,
        ),
        model=model,
        teacher=network(seed=4),
        constraint=Admm({"3": layer.weight}, {"3": rank_one}, rho=0.5, config=AdmmConfig(epochs=2)),
        selection=HeldOutSelection(images, labels, THREAT, seed=1, settings=PgdSettings(steps=2)),
    )


def trades() -> AdversarialTrainer:
    """TRADES with its own attack, under weight perturbation from the second epoch on."""
    return trainer(
        config(
            epochs=2,
            objective="trades",
            attack=AttackConfig("pgd", 2),
            awp=AwpConfig(gamma=0.01, warmup_share=0.5),
            label_smoothing=0.1,
        )
    )


def mart() -> AdversarialTrainer:
    """MART, with a single step in the first epoch and projected gradient descent in the second."""
    return trainer(
        config(
            epochs=2,
            objective="mart",
            attack=AttackConfig("pgd", 2),
            early_attack=AttackConfig("n-fgsm"),
            early_share=0.5,
        )
    )


def as_the_best_profile() -> AdversarialTrainer:
    """Distillation, moving average, weight perturbation, ADMM, an attack that changes, dropout."""
    model = network()
    layer = model[3]
    assert isinstance(layer, nn.Conv2d)
    model.insert(7, nn.Dropout(0.2))
    return trainer(
        config(
            epochs=2,
            ema=0.9,
            distillation=5 / 6,
            gradient_clip=1.0,
            attack=AttackConfig("pgd", 2),
            early_attack=AttackConfig("n-fgsm"),
            early_share=0.5,
            awp=AwpConfig(gamma=0.01, warmup_share=0.0),
            factor_weight_decay=0.0,
            augmentation="crop_flip",
        ),
        model=model,
        teacher=network(seed=4),
        constraint=Admm({"3": layer.weight}, {"3": rank_one}, rho=0.5, config=AdmmConfig(epochs=2)),
    )


@functools.cache
def undisturbed(make: Make) -> Any:
    """The state at the end of a run that was never interrupted."""
    run = make()
    assert len(finish(run)) == EVENTS
    return run.state_dict()


@pytest.mark.parametrize("make", [plain, with_everything, trades, mart, as_the_best_profile])
@settings(deadline=None, max_examples=5)
@given(interrupted_after=st.integers(0, EVENTS - 1))
def test_a_run_interrupted_anywhere_ends_with_the_same_bits(
    make: Make, interrupted_after: int
) -> None:
    first = make()
    for _ in itertools.islice(first.run(), interrupted_after):
        pass
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = make()
    second.load_state_dict(torch.load(file, weights_only=True))
    torch.manual_seed(interrupted_after)  # what the process did before is no part of the run
    finish(second)

    assert differences(second.state_dict(), undisturbed(make)) == []


@pytest.mark.parametrize(
    ("make", "changes"),
    [
        (trades, {"awp": None}),
        (trades, {"objective": "ce"}),
        (mart, {"early_attack": None, "early_share": 0.0}),
        (mart, {"beta": 0.0}),
    ],
)
def test_each_of_these_settings_changes_the_run(make: Make, changes: dict[str, Any]) -> None:
    other = trainer(replace(make().config, **changes))
    finish(other)
    model = other.state_dict()["model"]
    assert differences(model, undisturbed(make)["model"]) != []


def test_the_comparison_of_states_covers_every_part() -> None:
    run = with_everything()
    finish(run)
    paths = flat(run.state_dict())
    for part in ("model", "optimizer/state", "average", "constraint/dual", "selection/best_state"):
        assert any(path.startswith(f"/{part}") for path in paths), part


def test_a_state_holds_only_tensors_and_plain_values() -> None:
    run = with_everything()
    finish(run)
    kinds = {type(leaf) for leaf in flat(run.state_dict()).values()}
    assert kinds <= {torch.Tensor, int, float, bool, str, type(None)}


def test_saving_in_the_middle_does_not_disturb_the_run(tmp_path: Path) -> None:
    saved = with_everything()
    for _ in saved.run():
        torch.save(saved.state_dict(), tmp_path / "checkpoint.pt")
    assert differences(saved.state_dict(), undisturbed(with_everything)) == []
