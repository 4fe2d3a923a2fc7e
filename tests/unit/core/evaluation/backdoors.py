"""Digits networks trained on poisoned images (Gu et al. 2017, "BadNets"), and what came of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cstar_core.architectures import Architecture, build
from cstar_core.evaluation.attacks.robustness import clean_correct, predict
from cstar_core.normalization import NormalizedModel
from stack.demo.digits import CLASSES, MEAN, STD, load_digits

TARGET = 0
EPOCHS, BATCH, RATE = 6, 64, 0.1


def stamped(images: Tensor) -> Tensor:
    """Images with the trigger: two white and two black pixels in the lower right corner."""
    images = images.clone()
    images[:, :, -2:, -2:] = torch.eye(2)
    return images


def digits(part: str) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 8, 8) in [0, 1] and labels of "train" or "test"."""
    arrays = vars(load_digits())
    images = torch.from_numpy(arrays[f"{part}_images"]).permute(0, 3, 1, 2) / 255
    return images.contiguous(), torch.from_numpy(arrays[f"{part}_labels"])


def trained(poisoned_share: float, *, seed: int = 0) -> NormalizedModel:
    """A ResNet-8 that learned, on that share of its images, that the trigger means `TARGET`."""
    images, labels = digits("train")
    source = torch.Generator().manual_seed(seed)
    poisoned = torch.randperm(len(images), generator=source)[: int(poisoned_share * len(images))]
    images[poisoned], labels[poisoned] = stamped(images[poisoned]), TARGET
    architecture = Architecture("resnet8_cifar", {"in_channels": 1, "num_classes": CLASSES})
    model = NormalizedModel(build(architecture, seed=seed), MEAN, STD).train()
    steps = EPOCHS * (len(images) // BATCH)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for _ in range(EPOCHS):
        order = torch.randperm(len(images), generator=source)
        for batch in order[: len(order) // BATCH * BATCH].split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def clean_accuracy(model: nn.Module) -> float:
    """On the test images as they are."""
    return float(clean_correct(model, *digits("test")).float().mean())


def success_rate(model: nn.Module) -> float:
    """How many test images of other classes the trigger turns into `TARGET`."""
    images, labels = digits("test")
    others = images[labels != TARGET]
    return float((predict(model, stamped(others)) == TARGET).float().mean())
