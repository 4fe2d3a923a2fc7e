from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cstar_core.attacks import ThreatModel, fgsm_rs, n_fgsm, pgd
from cstar_core.training.config import AttackConfig, AwpConfig, TrainingConfig
from cstar_core.training.crafting import attack_batch

from .problems import dataset, network


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": -1},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"momentum": 1.0},
        {"weight_decay": -1e-4},
        {"warmup_epochs": -1.0},
        {"label_smoothing": 1.0},
        {"gradient_clip": 0.0},
        {"examples_per_epoch": 0},
        {"ema": 1.5},
        {"distillation": -0.1},
        {"schedule": "linear"},
        {"augmentation": "mixup"},
        {"precision": "float16"},
        {"objective": "focal"},
        {"beta": -1.0},
        {"factor_weight_decay": -1e-4},
        {"early_share": 1.5, "early_attack": AttackConfig("n-fgsm")},
        {"early_share": 0.5},
        {"early_attack": AttackConfig("n-fgsm")},
        {"distillation": 0.5, "objective": "trades"},
        {"label_smoothing": 0.1, "objective": "mart"},
        {"label_smoothing": 0.1, "distillation": 0.5},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_setting_that_makes_no_sense_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TrainingConfig(**{"epochs": 1} | wrong)


@pytest.mark.parametrize("wrong", [{"kind": "cw"}, {"steps": 0}, {"step_size": 0.0}])
def test_an_attack_setting_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"attack|step_size"):
        AttackConfig(**wrong)


@pytest.mark.parametrize("wrong", [{"gamma": -0.1}, {"gamma": 1.0}, {"warmup_share": 2.0}])
def test_a_weight_perturbation_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AwpConfig(**wrong)


@pytest.mark.parametrize(
    "settings",
    [
        TrainingConfig(epochs=2, attack=AttackConfig("n-fgsm"), ema=0.99),
        TrainingConfig(epochs=2, early_attack=AttackConfig("fgsm-rs"), early_share=0.2),
        TrainingConfig(epochs=2, awp=AwpConfig(gamma=0.01), objective="trades", compile=True),
    ],
)
def test_a_configuration_comes_back_from_its_json(settings: TrainingConfig) -> None:
    assert TrainingConfig.from_json(json.loads(json.dumps(settings.to_json()))) == settings


@given(epochs=st.integers(1, 200), share=st.floats(0.01, 1))
def test_the_early_attack_takes_its_share_of_the_epochs_and_then_stays_away(
    epochs: int, share: float
) -> None:
    early = AttackConfig("n-fgsm")
    settings = TrainingConfig(epochs=epochs, early_attack=early, early_share=share)
    attacks = [settings.attack_in(epoch) for epoch in range(epochs)]
    count = attacks.count(early)
    assert abs(count - share * epochs) <= 0.5
    assert attacks == [early] * count + [settings.attack] * (epochs - count)


def test_each_attack_kind_is_the_attack_of_that_name() -> None:
    images, labels = dataset(6)
    x, model, threat = images.float() / 255, network(), ThreatModel("linf", 0.1)

    def source() -> torch.Generator:
        return torch.Generator().manual_seed(4)

    crafted = {
        kind: attack_batch(AttackConfig(kind), model, x, labels, threat, generator=source())
        for kind in ("none", "pgd", "fgsm-rs", "n-fgsm")
    }
    assert crafted["none"] is x
    assert torch.equal(crafted["fgsm-rs"], fgsm_rs(model, x, labels, threat, generator=source()))
    assert torch.equal(crafted["n-fgsm"], n_fgsm(model, x, labels, threat, generator=source()))
    expected = pgd(
        model,
        x,
        labels,
        threat,
        steps=10,
        step_size=0.025,
        random_start=True,
        generator=source(),
    )
    assert torch.equal(crafted["pgd"], expected)
