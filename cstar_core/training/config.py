"""What a training run is: plain values, checked when they are made, ready to be stored as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from cstar_core.training.augmentation import Augmentation
from cstar_core.training.schedules import Schedule

AttackKind = Literal["none", "pgd", "fgsm-rs", "n-fgsm"]
Objective = Literal["ce", "trades", "mart"]
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
class AwpConfig:
    """Adversarial weight perturbation by `gamma` |w| per layer, after `warmup_share` of the run."""

    gamma: float = 0.005
    warmup_share: float = 0.1

    def __post_init__(self) -> None:
        _check(0 <= self.gamma < 1, f"awp gamma must be in [0, 1), got {self.gamma}")
        _check_share("awp warmup_share", self.warmup_share)


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of one `AdversarialTrainer` run by SGD.

    The loss is `objective` with its `beta` (TRADES, MART), or with `distillation` the weight alpha
    of `objectives.Distillation`. The first `early_share` of the epochs use `early_attack`.
    `factor_weight_decay` replaces `weight_decay` on the factors of factorised layers,
    `weight_decay_on_norm` extends it to vectors (norm scales, biases). `examples_per_epoch` draws a
    new seeded subset each epoch. `precision` and `compile` are wishes: `AdversarialTrainer.
    effective` says what ran. Raises ValueError on nonsense.
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
    objective: Objective = "ce"
    beta: float = 6.0
    awp: AwpConfig | None = None
    factor_weight_decay: float | None = None
    early_attack: AttackConfig | None = None
    early_share: float = 0.0
    compile: bool = False

    def __post_init__(self) -> None:
        self._check_choices()
        self._check_numbers()
        _check(
            self.distillation is None or self.objective == "ce",
            f"distillation replaces the objective; set objective='ce', not {self.objective!r}",
        )
        _check(
            not self.label_smoothing or (self.distillation is None and self.objective != "mart"),
            "label_smoothing smooths the labels of cross-entropy; MART and distillation have none",
        )
        _check(
            (self.early_attack is None) == (self.early_share == 0),
            "early_attack needs an early_share above 0, and the other way round",
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrainingConfig:
        """The settings that `to_json` described. Raises TypeError for a field there is not."""
        parts: dict[str, Any] = {"attack": AttackConfig(**data["attack"])}
        if data["early_attack"] is not None:
            parts["early_attack"] = AttackConfig(**data["early_attack"])
        if data["awp"] is not None:
            parts["awp"] = AwpConfig(**data["awp"])
        return cls(**{**data, **parts})

    def to_json(self) -> dict[str, Any]:
        """The settings as a report states them."""
        return asdict(self)

    def attack_in(self, epoch: int) -> AttackConfig:
        """The attack of `epoch` (counted from 0)."""
        early = epoch < round(self.early_share * self.epochs)
        return self.early_attack if self.early_attack is not None and early else self.attack

    def awp_in(self, epoch: int) -> bool:
        """Whether weights are perturbed in `epoch` (counted from 0)."""
        return self.awp is not None and epoch >= round(self.awp.warmup_share * self.epochs)

    def _check_choices(self) -> None:
        _check_choice("schedule", self.schedule, get_args(Schedule))
        _check_choice("augmentation", self.augmentation, get_args(Augmentation))
        _check_choice("precision", self.precision, get_args(Precision))
        _check_choice("objective", self.objective, get_args(Objective))

    def _check_numbers(self) -> None:
        _check(self.batch_size >= 1, f"batch_size must be at least 1, got {self.batch_size}")
        _check(self.learning_rate > 0, f"learning_rate must be positive, got {self.learning_rate}")
        _check(0 <= self.momentum < 1, f"momentum must be in [0, 1), got {self.momentum}")
        _check(0 <= self.label_smoothing < 1, f"label_smoothing: {self.label_smoothing}")
        _check_share("early_share", self.early_share)
        for name in ("epochs", "weight_decay", "factor_weight_decay", "warmup_epochs", "beta"):
            value = getattr(self, name)
            _check(value is None or value >= 0, f"{name} must not be negative, got {value}")
        for name in ("gradient_clip", "examples_per_epoch"):
            value = getattr(self, name)
            _check(value is None or value > 0, f"{name} must be positive or None, got {value}")
        for name in ("ema", "distillation"):
            value = getattr(self, name)
            if value is not None:
                _check_share(name, value)


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    _check(value in choices, f"unknown {name} {value!r}; use one of {choices}")


def _check_share(name: str, value: float) -> None:
    _check(0 <= value <= 1, f"{name} must be in [0, 1], got {value}")
