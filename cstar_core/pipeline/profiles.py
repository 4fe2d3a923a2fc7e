"""Profiles: how much is trained, and by which recipe. Data, not code; docs/profiles.md explains it.

`quick` is for trials and tests and says so of itself, `paper` is PGD-10 adversarial training by
the recipe of method.md section 5, `best` adds what is known to make the result more robust.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cstar_core.evaluation.attacks.robustness import PgdSettings
from cstar_core.training.admm import AdmmConfig
from cstar_core.training.augmentation import Augmentation
from cstar_core.training.config import AttackConfig, AwpConfig, TrainingConfig


@dataclass(frozen=True)
class Profile:
    """The three training runs of a job and how their epochs are chosen.

    `held_out` training examples are set aside for every choice (ranks, epochs), scored by
    `selection`. `robust_mark` is the share of clean accuracy that must survive `selection` for the
    uploaded network to count as robust already (else it is trained adversarially first).
    `finetune_rate_at` are pairs of a compression ratio and the learning rate of fine-tuning from
    there on; see `for_ratio`.
    """

    name: str
    note: str
    dense: TrainingConfig
    admm: TrainingConfig
    finetune: TrainingConfig
    admm_rho: AdmmConfig
    held_out: int
    selection: PgdSettings
    robust_mark: float = 0.5
    rank_multiple: int = 1
    finetune_rate_at: tuple[tuple[float, float], ...] = ()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Profile:
        """The profile that `to_json` described."""
        selection = data["selection"]
        runs = {name: dict(data[name]) for name in ("dense", "admm", "finetune")}
        rho = runs["admm"].pop("rho")
        parts = {
            **{name: TrainingConfig.from_json(run) for name, run in runs.items()},
            "admm_rho": AdmmConfig(**rho),
            "selection": PgdSettings(
                **{key: selection[key] for key in ("steps", "step_size", "restarts", "loss")}
            ),
            "finetune_rate_at": tuple((ratio, rate) for ratio, rate in data["finetune_rate_at"]),
        }
        return cls(**{**data, **parts})

    def to_json(self) -> dict[str, Any]:
        """Return the profile as a report states it."""
        return {
            "name": self.name,
            "note": self.note,
            "dense": self.dense.to_json(),
            "admm": self.admm.to_json() | {"rho": self.admm_rho.to_json()},
            "finetune": self.finetune.to_json(),
            "held_out": self.held_out,
            "selection": self.selection.to_json(),
            "robust_mark": self.robust_mark,
            "rank_multiple": self.rank_multiple,
            "finetune_rate_at": [list(pair) for pair in self.finetune_rate_at],
        }


_SINGLE_STEP = AttackConfig(kind="n-fgsm")
_PGD_10 = AttackConfig(kind="pgd", steps=10, step_size=0.25)

_QUICK = TrainingConfig(
    epochs=8,
    batch_size=64,
    learning_rate=0.02,
    gradient_clip=1.0,
    attack=_SINGLE_STEP,
    augmentation="crop",
    examples_per_epoch=2048,
)
_PAPER = TrainingConfig(
    epochs=60,
    batch_size=128,
    learning_rate=0.01,
    weight_decay=5e-4,
    factor_weight_decay=1e-4,
    gradient_clip=1.0,
    attack=_PGD_10,
    augmentation="crop_flip",
    ema=0.999,
    precision="bfloat16",
)
_BEST = replace(_PAPER, awp=AwpConfig(gamma=0.005), early_attack=_SINGLE_STEP, early_share=0.3)
_BEST_TAUGHT = replace(_BEST, distillation=5 / 6)  # by the robust dense network
_FROM_32_TIMES = ((32.0, 0.05),)

PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            name="quick",
            note="minutes on a CPU, for trials and tests; its accuracy is not a result",
            dense=replace(_QUICK, epochs=2, learning_rate=0.05),
            admm=replace(_QUICK, epochs=8, learning_rate=0.05),
            finetune=replace(_QUICK, epochs=8, weight_decay=1e-4),
            admm_rho=AdmmConfig(epochs=8),
            held_out=256,
            selection=PgdSettings(steps=5),
            rank_multiple=4,
        ),
        Profile(
            name="paper",
            note="PGD-10 adversarial training on cross-entropy alone",
            dense=replace(_PAPER, epochs=110, learning_rate=0.1),
            admm=_PAPER,
            finetune=replace(_PAPER, epochs=40),
            admm_rho=AdmmConfig(epochs=60),
            held_out=1000,
            selection=PgdSettings(steps=10),
            rank_multiple=4,
            finetune_rate_at=_FROM_32_TIMES,
        ),
        Profile(
            name="best",
            note="weight perturbation, distillation from the robust dense network, early N-FGSM",
            dense=replace(_BEST, epochs=110, learning_rate=0.1),
            admm=replace(_BEST_TAUGHT, learning_rate=0.1),
            finetune=replace(_BEST_TAUGHT, epochs=40),
            admm_rho=AdmmConfig(epochs=60),
            held_out=1000,
            selection=PgdSettings(steps=10),
            rank_multiple=4,
            finetune_rate_at=_FROM_32_TIMES,
        ),
    )
}


def for_ratio(profile: Profile, ratio: float | None) -> Profile:
    """Return `profile` with the fine-tuning rate of a compression by `ratio`, parameters over all.

    The pair of `finetune_rate_at` with the largest ratio that is reached counts; without one, or
    without a ratio, the profile is as it was.
    """
    reached = [pair for pair in profile.finetune_rate_at if ratio is not None and ratio >= pair[0]]
    if not reached:
        return profile
    _, rate = max(reached)
    return replace(profile, finetune=replace(profile.finetune, learning_rate=rate))


def adapt(
    profile: Profile,
    *,
    augmentation: Augmentation | None = None,
    dense_epochs: int | None = None,
    admm_epochs: int | None = None,
    finetune_epochs: int | None = None,
    examples_per_epoch: int | None = None,
    rank_multiple: int | None = None,
) -> Profile:
    """Return `profile` with the values that are given; None leaves the profile's."""

    def adapted(config: TrainingConfig, epochs: int | None) -> TrainingConfig:
        return replace(
            config,
            epochs=config.epochs if epochs is None else epochs,
            augmentation=augmentation or config.augmentation,
            examples_per_epoch=examples_per_epoch or config.examples_per_epoch,
        )

    admm = adapted(profile.admm, admm_epochs)
    return replace(
        profile,
        dense=adapted(profile.dense, dense_epochs),
        admm=admm,
        finetune=adapted(profile.finetune, finetune_epochs),
        admm_rho=replace(profile.admm_rho, epochs=admm.epochs),
        rank_multiple=rank_multiple or profile.rank_multiple,
    )
