"""How an evaluation is carried out: the same for every network that is compared."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from cstar_core.attacks import ThreatModel
from cstar_core.evaluation.attacks.robustness import PgdSettings
from cstar_core.training.randomness import derive_seed, generator

PGD = PgdSettings(steps=20)
# Through JPEG the cross-entropy overstates what is left: on a published ResNet-20 by 1.5 points,
# on ETH's robust network by up to 6 (200 images each).
PGD_THROUGH_JPEG = PgdSettings(steps=20, restarts=2, loss="margin")
BATCH = 128
# Whose versions the figures depend on.
LIBRARIES = ("torch", "numpy", "pillow", "pyautoattack", "cstar-service")


@dataclass(frozen=True)
class EvaluationSettings:
    """The threat model, on how many test examples, and the seed that everything is drawn from.

    `examples` are attacked by PGD-20, the first `autoattack_examples` of them by AutoAttack; the
    first `probe_examples` serve the measures beside these (curve, steps, corruptions, ...). Clean
    accuracy is that of all test images.
    """

    threat: ThreatModel
    seed: int
    examples: int
    autoattack_examples: int
    probe_examples: int

    def to_json(self) -> dict[str, Any]:
        """Everything besides networks and images that the figures depend on."""
        return {
            **asdict(self),
            "batch_size": BATCH,
            "pgd": PGD.to_json(),
            "pgd_through_jpeg": PGD_THROUGH_JPEG.to_json(),
            "versions": {name: version(name) for name in LIBRARIES},
        }

    @property
    def attack_seed(self) -> int:
        """The seed of every attack's random choices."""
        return derive_seed(self.seed, "evaluation")

    def attacked_index(self, test_examples: int) -> Tensor:
        """Rows of the test split that are attacked, (n,) int64: a seeded choice."""
        order = torch.randperm(test_examples, generator=generator(self.seed, "attacked"))
        return order[: self.examples]

    def replay_facts(self, test_examples: int) -> dict[str, Any]:
        """What it takes to replay PGD to the example: rows, batches, seeds of the starts."""
        index = self.attacked_index(test_examples).tolist()
        batches = range(math.ceil(len(index) / BATCH))
        return {
            "index": index,
            "n": len(index),
            "batch_size": BATCH,
            "start_seeds": [derive_seed(self.attack_seed, "pgd", batch, 0) for batch in batches],
        }
