from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cstar_core.criteria import CraftingLoss
from cstar_core.training.config import AttackConfig
from cstar_core.training.crafting import Crafter, attack_batch
from cstar_core.training.execution import Execution

from .problems import THREAT, dataset, finish, network, trainer

CPU = Execution(device="cpu", precision="float32", compiled=False)


def source() -> torch.Generator:
    return torch.Generator().manual_seed(2)


def crafted(model: nn.Module, loss: CraftingLoss, config: AttackConfig) -> Tensor:
    images, labels = dataset(12)
    craft = Crafter(model, THREAT, loss=loss, execution=CPU)
    return craft(config, images.float() / 255, labels, generator=source())


@pytest.mark.parametrize("loss", ["ce", "kl"])
@pytest.mark.parametrize("kind", ["pgd", "fgsm-rs", "n-fgsm"])
def test_a_crafter_raises_its_loss_by_the_attack_it_is_given(kind: str, loss: CraftingLoss) -> None:
    images, labels = dataset(12)
    x, model, config = images.float() / 255, network(), AttackConfig(kind, steps=2)  # type: ignore[arg-type]
    expected = attack_batch(config, model, x, labels, THREAT, generator=source(), loss=loss)
    # The folded copy rounds otherwise: a sign near zero may differ in a few pixels.
    assert (crafted(model, loss, config) - expected).abs().mean() < 1e-4


def test_the_losses_lead_to_different_examples() -> None:
    config = AttackConfig("pgd", steps=2)
    difference = crafted(network(), "ce", config) - crafted(network(), "kl", config)
    assert difference.abs().mean() > 1e-3


def test_a_crafter_follows_the_weights_of_its_model() -> None:
    images, labels = dataset(12)
    x, config = images.float() / 255, AttackConfig("pgd", steps=2)
    run = trainer()
    craft = Crafter(run.model, THREAT, loss="ce", execution=CPU)
    before = craft(config, x, labels, generator=source())
    finish(run)
    now = craft(config, x, labels, generator=source())
    assert not torch.allclose(now, before)
    assert (now - crafted(run.model, "ce", config)).abs().max() == 0
