"""What a training run is: plain values, checked when they are made, ready to be stored as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from torch import Generator, Tensor, nn

from cstar_core.attacks import ThreatModel, fgsm_rs, n_fgsm, pgd
from cstar_core.training.augmentation import Augmentation
from cstar_core.training.schedules import Schedule

AttackKind = Literal["none", "pgd", "fgsm-rs", "n-fgsm"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class AttackConfig:
    """How training examples are attacked; `step_size` is a fraction of epsilon.

    `steps` and `step_size` are PGD's; the single-step kinds follow their papers.
    """

    kind: AttackKind = "pgd"
    steps: int = 10
    step_size: float = 0.25

    def __post_init__(self) -> None:
        _check_choice("attack kind", self.kind, get_args(AttackKind))
        _check(self.steps >= 1, f"an attack takes at least 1 step, got {self.steps}")
        _check(self.step_size > 0, f"step_size must be positive, got {self.step_size}")


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of one `AdversarialTrainer` run by SGD.

    `weight_decay_on_norm` extends weight decay to vectors (norm scales, biases). `distillation`
    is the weight alpha of the adversarial term (see `objectives.robust_distillation`).
    `examples_per_epoch` draws a new seeded subset each epoch. Raises ValueError on nonsense.
    """

    epochs: int
    batch_size: int = 128
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Schedule = "cosine"
    warmup_epochs: float = 0.0
    gradient_clip: float | None = None
    attack: AttackConfig = field(default_factory=AttackConfig)
    augmentation: Augmentation = "none"
    ema: float | None = None
    label_smoothing: float = 0.0
    distillation: float | None = None
    examples_per_epoch: int | None = None
    weight_decay_on_norm: bool = False
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        _check_choice("schedule", self.schedule, get_args(Schedule))
        _check_choice("augmentation", self.augmentation, get_args(Augmentation))
        _check_choice("precision", self.precision, get_args(Precision))
        _check(self.epochs >= 0, f"epochs must not be negative, got {self.epochs}")
        _check(self.batch_size >= 1, f"batch_size must be at least 1, got {self.batch_size}")
        _check(self.learning_rate > 0, f"learning_rate must be positive, got {self.learning_rate}")
        _check(0 <= self.momentum < 1, f"momentum must be in [0, 1), got {self.momentum}")
        _check(self.weight_decay >= 0, f"weight_decay is negative: {self.weight_decay}")
        _check(self.warmup_epochs >= 0, f"warmup_epochs is negative: {self.warmup_epochs}")
        _check(0 <= self.label_smoothing < 1, f"label_smoothing: {self.label_smoothing}")
        for name in ("gradient_clip", "examples_per_epoch"):
            value = getattr(self, name)
            _check(value is None or value > 0, f"{name} must be positive or None, got {value}")
        for name in ("ema", "distillation"):
            value = getattr(self, name)
            _check(value is None or 0 <= value <= 1, f"{name} must be in [0, 1], got {value}")

    def to_json(self) -> dict[str, Any]:
        """The settings as a report states them."""
        return asdict(self)


def attack_batch(
    config: AttackConfig,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    generator: Generator,
) -> Tensor:
    """Adversarial training examples for one batch, crafted on the cross-entropy."""
    match config.kind:
        case "none":
            return images
        case "fgsm-rs":
            return fgsm_rs(model, images, labels, threat, generator=generator)
        case "n-fgsm":
            return n_fgsm(model, images, labels, threat, generator=generator)
        case "pgd":
            return pgd(
                model,
                images,
                labels,
                threat,
                steps=config.steps,
                step_size=config.step_size * threat.epsilon,
                random_start=True,
                generator=generator,
            )


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    _check(value in choices, f"unknown {name} {value!r}; use one of {choices}")
