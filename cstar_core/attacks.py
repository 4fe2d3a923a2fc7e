"""White-box attacks: projected gradient ascent and its named special cases.

Images are float32 in [0, 1] of shape (N, C, H, W), labels int64 of shape (N,); the model maps
images to logits (N, classes). An attack looks for x' with |x' - x| <= epsilon in the threat
model's norm and x' in [0, 1] that raises the loss. What a norm changes is three small functions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import torch
from torch import Generator, Tensor, nn

from cstar_core.criteria import AttackLoss, CraftingLoss, Criterion, criterion, margin
from cstar_core.norms import GEOMETRIES, Norm, per_example

__all__ = [
    "AttackLoss",
    "CraftingLoss",
    "Norm",
    "ThreatModel",
    "ascend",
    "attack_mode",
    "fgsm_rs",
    "input_gradient",
    "margin",
    "n_fgsm",
    "pgd",
    "uniform_start",
]


@dataclass(frozen=True)
class ThreatModel:
    """What an adversary may do: move an image by at most `epsilon`, in [0, 1] pixel space.

    Raises ValueError when the norm is unknown or epsilon is not a distance.
    """

    norm: Norm
    epsilon: float

    def __post_init__(self) -> None:
        if self.norm not in GEOMETRIES:
            raise ValueError(f"unknown norm {self.norm!r}; use one of {sorted(GEOMETRIES)}")
        if not (math.isfinite(self.epsilon) and self.epsilon >= 0):
            raise ValueError(f"epsilon must be finite and not negative, got {self.epsilon}")
        if self.norm == "linf" and self.epsilon > 1:
            raise ValueError(
                f"an L-inf epsilon is at most 1 in [0, 1] pixel space, got {self.epsilon}; "
                "divide by 255 if it was meant in grey levels"
            )

    def to_json(self) -> dict[str, str | float]:
        """The threat model as a report states it."""
        return asdict(self)


@contextmanager
def attack_mode(model: nn.Module) -> Iterator[nn.Module]:
    """Freeze parameters and put every module in eval mode; restore both at exit, also on errors.

    Gradients then flow to the input only, and batch norm neither mixes examples nor learns.
    """
    modes = [(module, module.training) for module in model.modules()]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        model.eval()
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield model
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
        for module, training in modes:
            module.training = training


def input_gradient(
    model: nn.Module, images: Tensor, labels: Tensor, *, loss: AttackLoss = "ce"
) -> tuple[Tensor, Tensor]:
    """Logits at `images`, and the gradient of the summed loss with respect to them."""
    return _gradient(model, images, criterion(loss, model, images, labels))


def uniform_start(images: Tensor, *, norm: Norm, radius: float, generator: Generator) -> Tensor:
    """A uniform draw from the ball of `radius` around each image, clipped to [0, 1]."""
    return (images + GEOMETRIES[norm].noise(images, radius, generator)).clamp(0, 1)


def ascend(
    perturbed: Tensor,
    gradient: Tensor,
    *,
    images: Tensor,
    norm: Norm,
    radius: float,
    step_size: float,
) -> Tensor:
    """One step of steepest ascent, projected onto the ball around `images` and onto [0, 1]."""
    geometry = GEOMETRIES[norm]
    moved = perturbed + step_size * geometry.direction(gradient)
    # Clipping to the box moves no coordinate away from the image, so it never leaves the ball.
    return (images + geometry.project(moved - images, radius)).clamp(0, 1)


def pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    steps: int,
    step_size: float,
    random_start: bool,
    generator: Generator,
    restarts: int = 1,
    loss: CraftingLoss = "ce",
) -> Tensor:
    """Projected gradient descent on the negative loss (Madry et al. 2018, section 2.1).

    `step_size` is in pixel units. Returns the last iterate; of several restarts, the one with
    the largest margin in favour of a wrong class, per example. Raises ValueError when the
    settings contradict each other.
    """
    _check_settings(steps=steps, step_size=step_size, restarts=restarts, random=random_start)
    with attack_mode(model):
        goal = criterion(loss, model, images, labels)
        candidates = (
            _ascent(
                model,
                _start(images, threat, generator) if random_start else images,
                goal,
                images=images,
                norm=threat.norm,
                radius=threat.epsilon,
                steps=steps,
                step_size=step_size,
            )
            for _ in range(restarts)
        )
        return next(candidates) if restarts == 1 else _strongest(model, candidates, labels)


def fgsm_rs(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    generator: Generator,
    step_size: float | None = None,
    loss: CraftingLoss = "ce",
) -> Tensor:
    """FGSM with a random start (Wong et al. 2020): PGD with one step of 1.25 epsilon."""
    return pgd(
        model,
        images,
        labels,
        threat,
        steps=1,
        step_size=1.25 * threat.epsilon if step_size is None else step_size,
        random_start=True,
        generator=generator,
        loss=loss,
    )


def n_fgsm(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    generator: Generator,
    loss: CraftingLoss = "ce",
) -> Tensor:
    """Noisy FGSM (de Jorge et al. 2022): noise from the 2 epsilon ball, then a step of epsilon.

    Clipped to [0, 1] only, so the result may lie up to 3 epsilon away: for training, never for
    evaluation.
    """
    epsilon = threat.epsilon
    with attack_mode(model):
        return _ascent(
            model,
            _start(images, threat, generator, radius=2 * epsilon),
            criterion(loss, model, images, labels),
            images=images,
            norm=threat.norm,
            radius=3 * epsilon,
            steps=1,
            step_size=epsilon,
        )


def _check_settings(*, steps: int, step_size: float, restarts: int, random: bool) -> None:
    if steps < 0 or restarts < 1 or not step_size >= 0:
        raise ValueError(
            f"need steps >= 0, restarts >= 1 and step_size >= 0, got {steps}, {restarts} and "
            f"{step_size}"
        )
    if restarts > 1 and not random:
        raise ValueError("restarts without a random start repeat one attack; set random_start")


def _start(
    images: Tensor, threat: ThreatModel, generator: Generator, *, radius: float | None = None
) -> Tensor:
    return uniform_start(
        images,
        norm=threat.norm,
        radius=threat.epsilon if radius is None else radius,
        generator=generator,
    )


def _ascent(
    model: nn.Module,
    perturbed: Tensor,
    goal: Criterion,
    *,
    images: Tensor,
    norm: Norm,
    radius: float,
    steps: int,
    step_size: float,
) -> Tensor:
    for _ in range(steps):
        _, gradient = _gradient(model, perturbed, goal)
        perturbed = ascend(
            perturbed, gradient, images=images, norm=norm, radius=radius, step_size=step_size
        )
    return perturbed.detach()


def _gradient(model: nn.Module, images: Tensor, goal: Criterion) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        point = images.detach().requires_grad_()
        logits = model(point)
        (gradient,) = torch.autograd.grad(goal(logits), point)
    return logits.detach(), gradient


def _strongest(model: nn.Module, candidates: Iterator[Tensor], labels: Tensor) -> Tensor:
    """Per example, the candidate whose margin in favour of a wrong class is largest."""
    best = next(candidates)
    with torch.no_grad():
        best_margin = margin(model(best), labels)
        for candidate in candidates:
            candidate_margin = margin(model(candidate), labels)
            stronger = candidate_margin > best_margin
            best = torch.where(per_example(stronger, best), candidate, best)
            best_margin = torch.maximum(best_margin, candidate_margin)
    return best
