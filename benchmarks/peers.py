"""What others do: the attack of torchattacks, and PGD and training as tutorials write them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from pyautoattack import AutoAttack
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.harness import Unavailable

STEPS = 10
EPSILON, STEP_SIZE = 8 / 255, 2 / 255
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 5e-4

Batch = tuple[Tensor, Tensor]


def torchattacks_pgd(
    model: nn.Module,
    *,
    steps: int = STEPS,
    epsilon: float = EPSILON,
    step_size: float = STEP_SIZE,
    random_start: bool = True,
) -> Callable[[Tensor, Tensor], Any]:
    """torchattacks.PGD, of images in [0, 1] and labels."""
    try:
        import torchattacks  # noqa: PLC0415
    except ImportError as missing:
        raise Unavailable("torchattacks is missing; run `make bench`") from missing
    attack: Callable[[Tensor, Tensor], Any] = torchattacks.PGD(
        model, eps=epsilon, alpha=step_size, steps=steps, random_start=random_start
    )
    return attack


def torchattacks_autoattack(
    model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, seed: int
) -> Tensor:
    """What torchattacks.AutoAttack, L-inf standard, makes of images in [0, 1]; ten classes."""
    try:
        import torchattacks  # noqa: PLC0415
    except ImportError as missing:
        raise Unavailable("torchattacks is missing; run `make bench`") from missing
    attack = torchattacks.AutoAttack(model, norm="Linf", eps=epsilon, n_classes=10, seed=seed)
    return torch.as_tensor(attack(images, labels))


def library_autoattack(
    model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, seed: int
) -> Tensor:
    """What `pyautoattack` alone, L-inf standard on one batch, makes of images in [0, 1]."""
    logger = logging.Logger("autoattack", level=logging.ERROR)  # not in the global hierarchy
    attack = AutoAttack(model, norm="Linf", eps=epsilon, version="standard", seed=seed)
    attack.logger = attack.apgd.logger = attack.apgd_targeted.logger = logger
    perturbed, _ = attack.run_standard_evaluation(images, labels, batch_size=len(images))
    return torch.as_tensor(perturbed)


def naive_pgd(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """PGD by `backward()`, which computes the gradients of all parameters on the way."""
    noise = torch.empty_like(images).uniform_(-EPSILON, EPSILON)
    perturbed = (images + noise).clamp(0, 1)
    for _ in range(STEPS):
        perturbed = perturbed.detach().requires_grad_()
        model.zero_grad()
        F.cross_entropy(model(perturbed), labels).backward()  # type: ignore[no-untyped-call]
        assert perturbed.grad is not None
        moved = perturbed.detach() + STEP_SIZE * perturbed.grad.sign()
        perturbed = torch.min(torch.max(moved, images - EPSILON), images + EPSILON).clamp(0, 1)
    return perturbed.detach()


class NaiveTraining:
    """Adversarial training with `naive_pgd`; `train_mode` leaves batch norm learning meanwhile."""

    def __init__(self, model: nn.Module, batch: Batch, *, train_mode: bool) -> None:
        self.model, self.train_mode = model, train_mode
        self.images, self.labels = batch[0].float() / 255, batch[1]
        self.optimizer = torch.optim.SGD(
            model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
        )

    def step(self) -> None:
        """Attack the batch, then one step of SGD on what came out."""
        self.model.train(self.train_mode)
        adversarial = naive_pgd(self.model, self.images, self.labels)
        self.model.train()
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(adversarial), self.labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
