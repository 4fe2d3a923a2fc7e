"""Linear classifiers whose exact robust accuracy is known, and images to attack."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cstar_core.attacks import Norm, ThreatModel

SIDE = 8
EPSILON: dict[Norm, float] = {"linf": 0.008, "l2": 0.05}


def linear(classes: int, seed: int = 0) -> nn.Sequential:
    """Logits W x + b of flattened 1 x 8 x 8 images."""
    layer = nn.Linear(SIDE * SIDE, classes)
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=source))
        # Grey images are on no class's side.
        layer.bias.copy_(-0.5 * layer.weight.sum(1))
    return nn.Sequential(nn.Flatten(), layer)


def robust_radius(model: nn.Sequential, images: Tensor, labels: Tensor, norm: Norm) -> Tensor:
    """Distance to the nearest wrong class, (N,), negative when misclassified; box ignored.

    For a linear model it is min_j (z_y - z_j) / |w_y - w_j| in the dual norm.
    """
    layer = model[1]
    assert isinstance(layer, nn.Linear)
    gaps = layer.weight[labels][:, None] - layer.weight[None]  # (N, classes, pixels)
    dual = torch.linalg.vector_norm(gaps, ord=1 if norm == "linf" else 2, dim=2)
    logits = model(images)
    margins = logits.gather(1, labels[:, None]) - logits
    radii = (margins / dual).scatter(1, labels[:, None], float("inf"))
    smallest: Tensor = radii.amin(1).detach()
    return smallest


def problem(
    norm: Norm, *, classes: int = 5, n: int = 12, seed: int = 0
) -> tuple[nn.Sequential, Tensor, Tensor, ThreatModel, Tensor]:
    """Model, images, labels, threat and the exact verdicts: about half of them robust.

    Images lie within [0.3, 0.7], so that [0, 1] never binds, and none is near a tie.
    """
    threat, model = ThreatModel(norm, EPSILON[norm]), linear(classes, seed)
    source = torch.Generator().manual_seed(seed + 1)
    images = 0.3 + 0.4 * torch.rand(400, 1, SIDE, SIDE, generator=source)
    labels = model(images).argmax(1)
    labels[::10] = (labels[::10] + 1) % classes  # some are misclassified to begin with
    radii = robust_radius(model, images, labels, norm)
    clear = (radii - threat.epsilon).abs() > 0.05 * threat.epsilon
    robust = (clear & (radii > threat.epsilon)).nonzero()[: n // 2, 0]
    fragile = (clear & (radii < threat.epsilon)).nonzero()[: n - n // 2, 0]
    assert len(robust) == n // 2
    chosen = torch.cat([robust, fragile])[torch.randperm(n, generator=source)]
    return model, images[chosen], labels[chosen], threat, radii[chosen] > threat.epsilon


def convolutional(classes: int = 4, seed: int = 0) -> nn.Sequential:
    """Convolution, batch norm, ReLU and a classifier of 1 x 8 x 8 images."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * SIDE * SIDE, classes),
    )
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=source) * 0.1)
        model[1].weight.fill_(1.0)  # type: ignore[operator]
        typical = torch.rand(64, 1, SIDE, SIDE, generator=source)
        model[4].bias -= model.eval()(typical).mean(0)  # every class is predicted now and then
    return model


def predicted(model: nn.Module, n: int = 40, seed: int = 3) -> tuple[Tensor, Tensor]:
    """Random images and what the model says of them."""
    images = torch.rand(n, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    return images, model(images).argmax(1)
