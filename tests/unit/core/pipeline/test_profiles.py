"""One test per profile: it comes back from its JSON, each of its phases runs, its page is true."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from cstar_core.pipeline.profiles import PROFILES, Profile, adapt, for_ratio
from cstar_core.projection import Ranks, project
from cstar_core.training.admm import Admm
from cstar_core.training.config import AttackConfig, TrainingConfig
from cstar_core.training.progress import Step

from ..training.problems import network, trainer

PAGE = Path(__file__).parents[4] / "docs" / "profiles.md"


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_a_profile_is_valid(name: str) -> None:
    profile = PROFILES[name]
    stored = profile.to_json()
    again = Profile.from_json(json.loads(json.dumps(stored)))
    assert again.to_json() == stored
    assert (again.dense, again.admm, again.finetune) == (
        profile.dense,
        profile.admm,
        profile.finetune,
    )
    for run in _one_step_each(profile):
        steps = [event for event in run if isinstance(event, Step)]
        assert len(steps) == 1
        assert steps[0].loss > 0
    assert _page()[name] == _facts(profile)


def _one_step_each(profile: Profile) -> list[list[object]]:
    """What happens in one epoch of one step of each phase, with teacher and ADMM as in a job."""
    tiny = adapt(profile, dense_epochs=1, admm_epochs=1, finetune_epochs=1, examples_per_epoch=12)
    tiny = for_ratio(tiny, 64.0)
    dense = network()
    weight = dense[3].weight
    constraint = Admm(
        {"3": weight},
        {"3": partial(project, ranks=Ranks(2, 2))},
        rho=0.1,
        config=tiny.admm_rho,
    )
    small = network()
    small[3] = nn.Sequential(nn.Conv2d(6, 2, 1, bias=False), nn.Conv2d(2, 8, 3, padding=1))
    runs = [
        trainer(tiny.dense, model=network()),
        trainer(tiny.admm, model=dense, teacher=_teacher(tiny.admm), constraint=constraint),
        trainer(tiny.finetune, model=small, teacher=_teacher(tiny.finetune)),
    ]
    return [list(run.run()) for run in runs]


def _teacher(config: TrainingConfig) -> nn.Module | None:
    return None if config.distillation is None else network(seed=7)


def _page() -> dict[str, dict[str, str]]:
    """The columns of the page's table: profile -> setting -> cell."""
    table, _, _ = PAGE.read_text().partition("\n\nAll use")
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if "|" in line]
    (_, *names), _, *settings = rows
    return {
        name: {row[0]: row[place] for row in settings} for place, name in enumerate(names, start=1)
    }


def _facts(profile: Profile) -> dict[str, str]:
    """What the table has to say of a profile."""
    runs = (profile.dense, profile.admm, profile.finetune)
    one = profile.finetune  # what the three runs share
    shared = ("batch_size", "examples_per_epoch", "factor_weight_decay", "attack", "early_attack")
    shared += ("early_share", "awp", "ema", "gradient_clip", "augmentation", "precision")
    for name in (*shared, "momentum", "schedule", "compile", "weight_decay_on_norm"):
        assert len({getattr(run, name) for run in runs}) == 1, name
    assert (one.momentum, one.schedule, one.compile, one.weight_decay_on_norm) == (
        0.9,
        "cosine",
        False,
        False,
    )
    early = one.early_attack
    return {
        "epochs: dense / ADMM / fine-tuning": " / ".join(str(run.epochs) for run in runs),
        "learning rate: dense / ADMM / fine-tuning": " / ".join(
            str(run.learning_rate) for run in runs
        ),
        "fine-tuning rate from a ratio on": "; ".join(
            f"{rate} from {ratio:g}x" for ratio, rate in profile.finetune_rate_at
        )
        or "-",
        "batch size": str(one.batch_size),
        "examples an epoch": str(one.examples_per_epoch or "all"),
        "weight decay: dense / ADMM / fine-tuning": " / ".join(
            str(run.weight_decay) for run in runs
        ),
        "weight decay of factors": str(one.factor_weight_decay or "as other weights"),
        "training attack": _attack(one.attack),
        "first share of the epochs": f"{one.early_share} by {_attack(early)}" if early else "-",
        "loss: dense / ADMM / fine-tuning": " / ".join(_loss(run) for run in runs),
        "weight perturbation (AWP)": str(one.awp.gamma) if one.awp else "-",
        "moving average of weights": str(one.ema or "-"),
        "gradient clip": str(one.gradient_clip),
        "augmentation": one.augmentation,
        "precision asked for": one.precision,
        "held-out training examples": str(profile.held_out),
        "ranks in multiples of": str(profile.rank_multiple),
    }


def _attack(attack: AttackConfig) -> str:
    if attack.kind != "pgd":
        return attack.kind
    return f"pgd-{attack.steps}, step {attack.step_size} epsilon"


def _loss(run: TrainingConfig) -> str:
    if run.distillation is not None:
        return f"distillation {run.distillation:.3f}"
    return run.objective


@pytest.mark.parametrize(
    ("ratio", "rate"),
    [(None, 0.01), (1.0, 0.01), (8.0, 0.02), (31.9, 0.02), (32.0, 0.05), (64.0, 0.05)],
)
def test_the_largest_ratio_that_is_reached_sets_the_fine_tuning_rate(
    ratio: float | None, rate: float
) -> None:
    profile = replace(PROFILES["paper"], finetune_rate_at=((32.0, 0.05), (8.0, 0.02)))
    adapted = for_ratio(profile, ratio)
    assert adapted.finetune.learning_rate == rate
    assert replace(adapted, finetune=profile.finetune) == profile


def test_a_profile_without_rates_by_ratio_stays_as_it_is() -> None:
    assert for_ratio(PROFILES["quick"], 100.0) is PROFILES["quick"]


def test_a_tiny_step_of_the_best_profile_uses_all_its_parts() -> None:
    """Guards the test above: with a part taken away, the step leads elsewhere."""
    best = replace(
        adapt(PROFILES["best"], finetune_epochs=1, examples_per_epoch=12).finetune,
        awp=replace(PROFILES["best"].finetune.awp, warmup_share=0.0),
    )

    def weights(config: TrainingConfig) -> torch.Tensor:
        run = trainer(config, teacher=_teacher(config))
        list(run.run())
        return torch.cat([p.detach().flatten() for p in run.model.parameters()])

    whole = weights(best)
    for part in ({"awp": None}, {"distillation": None}, {"gradient_clip": 1e-3}):
        assert not torch.equal(weights(replace(best, **part)), whole), part
