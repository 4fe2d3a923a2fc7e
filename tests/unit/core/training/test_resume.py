from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cstar_core.evaluation.robustness import PgdSettings
from cstar_core.training.admm import Admm, AdmmConfig
from cstar_core.training.config import AttackConfig
from cstar_core.training.loop import AdversarialTrainer
from cstar_core.training.selection import HeldOutSelection

from .problems import THREAT, config, dataset, differences, finish, flat, network, trainer

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


@pytest.mark.parametrize("make", [plain, with_everything])
@pytest.mark.parametrize("interrupted_after", range(EVENTS))
def test_a_run_interrupted_anywhere_ends_with_the_same_bits(
    make: Callable[[], AdversarialTrainer], interrupted_after: int, tmp_path: Path
) -> None:
    undisturbed = make()
    assert len(finish(undisturbed)) == EVENTS

    first = make()
    events = first.run()
    for _ in range(interrupted_after):
        next(events)
    torch.save(first.state_dict(), tmp_path / "checkpoint.pt")
    second = make()
    second.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    finish(second)

    assert differences(second.state_dict(), undisturbed.state_dict()) == []


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
    undisturbed, saved = with_everything(), with_everything()
    finish(undisturbed)
    for _ in saved.run():
        torch.save(saved.state_dict(), tmp_path / "checkpoint.pt")
    assert differences(saved.state_dict(), undisturbed.state_dict()) == []
