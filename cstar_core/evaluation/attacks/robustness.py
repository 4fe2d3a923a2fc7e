"""Which examples a model classifies correctly: as they are, and under projected gradient descent.

Images are uint8 or float32 in [0, 1], (N, C, H, W), on the model's device; labels int64 (N,).
Verdicts are one bool per example, so that two models can be compared in pairs.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cstar_core.attacks import (
    AttackLoss,
    ThreatModel,
    ascend,
    attack_mode,
    input_gradient,
    uniform_start,
)
from cstar_core.evaluation.attacks.precision import float32_exact
from cstar_core.evaluation.batches import (
    Completed,
    Ledger,
    OnBatch,
    Record,
    batch_slices,
    unit_interval,
)
from cstar_core.training.randomness import generator

# Four digits are more steps than anyone takes; they bound what a name can ask for.
_PGD_NAME = re.compile(r"pgd-([1-9]\d{0,3})(?:x([1-9]\d{0,2}))?(-margin)?", re.ASCII)
Heartbeat = Callable[[], None]


class Watched(nn.Module):
    """The model, calling `heartbeat` at every forward pass, so that a long attack shows life."""

    def __init__(self, model: nn.Module, heartbeat: Heartbeat | None) -> None:
        super().__init__()
        self.model, self.heartbeat = model, heartbeat
        self.training = model.training

    def forward(self, images: Tensor) -> Tensor:
        """What the model says of the images."""
        if self.heartbeat is not None:
            self.heartbeat()
        logits: Tensor = self.model(images)
        return logits


@dataclass(frozen=True)
class PgdSettings:
    """PGD for evaluation; `step_size` is a fraction of epsilon.

    The default step, 2.5 / steps, lets every start reach every point of the ball (Madry et al.
    2018, section 5). Raises ValueError on nonsense.
    """

    steps: int = 20
    step_size: float | None = None
    restarts: int = 1
    loss: AttackLoss = "ce"

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1:
            raise ValueError(f"need steps and restarts >= 1, got {self.steps}, {self.restarts}")
        if self.step_size is not None and self.step_size <= 0:
            raise ValueError(f"step_size must be positive, got {self.step_size}")

    @classmethod
    def parse(cls, name: str) -> PgdSettings:
        """Settings by their `name`, such as `pgd-50x5-margin`. ValueError for any other text."""
        found = _PGD_NAME.fullmatch(name)
        if not found:
            raise ValueError(f"{name!r} is not pgd-STEPS, pgd-STEPSxRESTARTS or these with -margin")
        steps, restarts, margin = found.groups()
        loss: AttackLoss = "margin" if margin else "ce"
        return cls(steps=int(steps), restarts=int(restarts or 1), loss=loss)

    @property
    def name(self) -> str:
        """Such as `pgd-20`, or `pgd-20x5-margin` for five restarts on the margin."""
        restarts = f"x{self.restarts}" if self.restarts > 1 else ""
        return f"pgd-{self.steps}{restarts}" + ("" if self.loss == "ce" else f"-{self.loss}")

    @property
    def relative_step(self) -> float:
        """The step as a fraction of epsilon."""
        return 2.5 / self.steps if self.step_size is None else self.step_size

    def to_json(self) -> dict[str, Any]:
        """Every setting, the default step resolved."""
        return asdict(self) | {
            "name": self.name,
            "step_size": self.relative_step,
            "random_start": True,
            "worst_case_over": "clean image and every iterate",
        }


def class_count(model: nn.Module, images: Tensor) -> int:
    """How many classes the model tells apart, from its answer to one image."""
    with float32_exact(model), attack_mode(model), torch.no_grad():
        return int(model(unit_interval(images[:1])).shape[1])


@torch.no_grad()
def predict(model: nn.Module, images: Tensor, *, batch_size: int = 256) -> Tensor:
    """The predicted class of each image, (N,) int64, in eval mode and exact float32.

    Raises ValueError for a model that is not float32.
    """
    with float32_exact(model), attack_mode(model):
        batches = [
            model(unit_interval(images[where])).argmax(1)
            for where in batch_slices(len(images), batch_size)
        ]
    return (
        torch.cat(batches) if batches else torch.empty(0, dtype=torch.int64, device=images.device)
    )


def clean_correct(
    model: nn.Module, images: Tensor, labels: Tensor, *, batch_size: int = 256
) -> Tensor:
    """Whether each unperturbed image is classified correctly, (N,) bool."""
    return predict(model, images, batch_size=batch_size) == labels


def pgd_correct(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    settings: PgdSettings | None = None,
    seed: int,
    batch_size: int = 256,
    completed: Completed | None = None,
    on_batch: OnBatch | None = None,
    heartbeat: Heartbeat | None = None,
) -> Tensor:
    """Whether each image stays correct under PGD, (N,) bool: the worst case over all iterates.

    An image is attacked no further once it is misclassified, clean or perturbed; as the start of
    every image is drawn beforehand, that changes no verdict. Every verdict is that of `model`
    itself, so that it replays to the example; give `folding.attack_target(model)` where speed
    counts more. Batches in `completed` are not run again; `on_batch` hears of each new one, and
    `heartbeat` of every forward pass. Raises ValueError for a model that is not float32.
    """
    attack = _Attack(Watched(model, heartbeat), threat, settings or PgdSettings(), seed)
    slices = list(batch_slices(len(images), batch_size))
    ledger = Ledger(len(slices), completed=completed, on_batch=on_batch)
    verdicts: list[bool] = []
    with float32_exact(model):
        for index, where in enumerate(slices):
            run = functools.partial(attack.record, index, images[where], labels[where])
            verdicts += ledger.recall_or(str(index), run)["correct"]
    return torch.tensor(verdicts, dtype=torch.bool, device=labels.device)


@dataclass(frozen=True)
class _Attack:
    """PGD with early drop on one batch after another."""

    model: nn.Module
    threat: ThreatModel
    settings: PgdSettings
    seed: int

    def record(self, index: int, images: Tensor, labels: Tensor) -> Record:
        """Which examples of batch `index` survive every restart."""
        images = unit_interval(images)
        survives = clean_correct(self.model, images, labels, batch_size=len(images))
        with attack_mode(self.model):
            for restart in range(self.settings.restarts):
                source = generator(self.seed, "pgd", index, restart, device=images.device)
                self._drop_broken(survives, images, labels, source)
        return {"correct": survives.tolist(), "flags": []}

    def _drop_broken(
        self, survives: Tensor, images: Tensor, labels: Tensor, source: torch.Generator
    ) -> None:
        """Attack the examples that survive so far; clear `survives` where an iterate wins."""
        norm, epsilon = self.threat.norm, self.threat.epsilon
        # Drawn for the whole batch: an example's start does not depend on who else survives.
        start = uniform_start(images, norm=norm, radius=epsilon, generator=source)
        active = survives.nonzero()[:, 0]
        perturbed = start[active]
        for _ in range(self.settings.steps):
            if not len(active):
                return
            logits, gradient = self._gradient(perturbed, labels[active])
            alive = logits.argmax(1) == labels[active]
            survives[active[~alive]] = False
            active = active[alive]
            perturbed = ascend(
                perturbed[alive],
                gradient[alive],
                images=images[active],
                norm=norm,
                radius=epsilon,
                step_size=self.settings.relative_step * epsilon,
            )
        survives[active] = clean_correct(
            self.model, perturbed, labels[active], batch_size=len(images)
        )

    def _gradient(self, perturbed: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return input_gradient(self.model, perturbed, labels, loss=self.settings.loss)
