"""What a change of each layer's weight costs in loss, from gradients of the adversarial loss.

Near a minimum the loss grows by 1/2 dW^T F dW when the weights move by dW, with F the Fisher
information; its diagonal is taken as the mean squared gradient over examples (Theis et al.,
"Faster gaze prediction with dense networks and Fisher pruning", 2018, section 2.1). One number
for each layer, the mean of that diagonal, makes the growth 1/2 w_l |dW_l|^2: energy of the layer,
weighted. Labels of the data make it the empirical Fisher.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cstar_core.layers import eval_mode


def fisher_weights(
    model: nn.Module, parameters: Mapping[str, Tensor], images: Tensor, labels: Tensor
) -> dict[str, float]:
    """w_l for each of `parameters` (the model's own, by layer): the mean squared gradient.

    `images` (N, C, H, W) are what the model takes, adversarial ones for an adversarial loss,
    `labels` (N,). Cross-entropy, batch norm in eval mode, one backward pass for each image.
    Weights are positive; a gradient that vanishes gives the least positive number.
    """
    totals = [torch.zeros((), dtype=torch.float64) for _ in parameters]
    with torch.enable_grad(), eval_mode(model):
        for image, label in zip(images, labels, strict=True):
            loss = F.cross_entropy(model(image[None]), label[None])
            gradients = torch.autograd.grad(loss, list(parameters.values()))
            for total, gradient in zip(totals, gradients, strict=True):
                total.add_(gradient.double().square().mean().cpu())
    means = [float(total) / len(labels) for total in totals]
    floor = sys.float_info.min
    return {name: max(mean, floor) for name, mean in zip(parameters, means, strict=True)}
