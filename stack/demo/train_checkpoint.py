"""How `digits_resnet8.safetensors` was made: `python -m stack.demo.train_checkpoint`.

PGD-10 adversarial training (Madry et al. 2018) of a ResNet-8 on the training part of the digits;
the epoch kept is the best on a held-out part of it. About two minutes on 2 cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from cstar_core.architectures import Architecture, build
from cstar_core.attacks import ThreatModel
from cstar_core.evaluation.attacks.robustness import PgdSettings, clean_correct, pgd_correct
from cstar_core.files.checkpoints import write_weights
from cstar_core.files.datasets import hold_out
from cstar_core.normalization import NormalizedModel
from cstar_core.training.config import AttackConfig, TrainingConfig
from cstar_core.training.loop import AdversarialTrainer
from cstar_core.training.progress import EpochEnd
from cstar_core.training.selection import HeldOutSelection
from stack.demo.digits import CLASSES, MEAN, STD, load_digits

ARCHITECTURE = Architecture(
    "resnet8_cifar", {"width": 16, "in_channels": 1, "num_classes": CLASSES}
)
THREAT = ThreatModel("linf", 0.1)
CHECKPOINT = Path(__file__).parent / "digits_resnet8.safetensors"
CONFIG = TrainingConfig(
    epochs=40,
    batch_size=64,
    learning_rate=0.05,
    gradient_clip=1.0,
    attack=AttackConfig(kind="pgd", steps=10, step_size=0.25),
    augmentation="crop",
)


def main() -> None:
    """Train, print the accuracy of each epoch, and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=CHECKPOINT)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    digits = load_digits()
    images = torch.from_numpy(digits.train_images).permute(0, 3, 1, 2).contiguous()
    labels = torch.from_numpy(digits.train_labels)
    kept, held_out = hold_out(digits.train_labels, count=150, seed=arguments.seed)
    model = NormalizedModel(build(ARCHITECTURE, seed=arguments.seed), MEAN, STD)
    selection = HeldOutSelection(
        images[held_out], labels[held_out], THREAT, seed=0, settings=PgdSettings(steps=10)
    )
    trainer = AdversarialTrainer(
        model,
        images[kept],
        labels[kept],
        threat=THREAT,
        config=CONFIG,
        seed=arguments.seed,
        phase="digits",
        selection=selection,
    )
    for happening in trainer.run():
        if isinstance(happening, EpochEnd):
            figures = "  ".join(f"{k} {v:.3f}" for k, v in happening.metrics.items())
            print(f"epoch {happening.epoch + 1:3d}  {figures}", flush=True)
    trainer.load_best()
    write_weights(model.network.state_dict(), arguments.output)
    _report(model, digits.test_images, digits.test_labels)


def _report(model: NormalizedModel, images: object, labels: object) -> None:
    pixels = torch.as_tensor(images).permute(0, 3, 1, 2).contiguous()
    truth = torch.as_tensor(labels)
    clean = clean_correct(model, pixels, truth).float().mean().item()
    robust = pgd_correct(model, pixels, truth, THREAT, seed=0).float().mean().item()
    print(f"test: clean {clean:.3f}, PGD-20 at epsilon {THREAT.epsilon} {robust:.3f}")


if __name__ == "__main__":
    main()
