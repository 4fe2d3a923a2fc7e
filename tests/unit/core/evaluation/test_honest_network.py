"""A published adversarially trained network, on CIFAR-10: honest, so no check may doubt it."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cstar_core.architectures import Architecture, load
from cstar_core.attacks import ThreatModel
from cstar_core.evaluation.attacks.curve import epsilon_curve
from cstar_core.evaluation.attacks.named import attack_correct
from cstar_core.evaluation.attacks.planted import planted_test
from cstar_core.evaluation.attacks.robustness import PgdSettings
from cstar_core.evaluation.attacks.steps import steps_check
from cstar_core.evaluation.reliability import (
    Reliability,
    consistency_flags,
    curve_flags,
    library_flags,
    model_flags,
    planted_flags,
    square_flags,
    steps_flags,
    verdict,
)
from cstar_core.files.checkpoints import read_checkpoint
from cstar_core.folding import attack_target
from cstar_core.normalization import NormalizedModel
from tests.support.checkpoints import RESNET_2B2
from tests.support.cifar10 import data_folder, tiles

THREAT = ThreatModel("linf", 8 / 255)
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)


@cache
def subject(n: int) -> tuple[nn.Module, Tensor, Tensor]:
    folder = data_folder()
    pixels = tiles(folder / "cifar10" / "test_00.webp")[:n]
    labels = np.load(folder / "cifar10" / "labels.npz")["test_labels"][:n].astype(np.int64)
    weights = read_checkpoint(folder / "checkpoints" / RESNET_2B2)
    network = load(Architecture("resnet_2b2_cifar"), weights)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    return NormalizedModel(network, MEAN, STD).eval(), images, torch.from_numpy(labels)


def test_it_is_reliable() -> None:
    given = (*subject(100), THREAT)
    pgd = attack_correct(*given, "pgd-20", seed=0)
    flags = model_flags(*subject(100))
    check = steps_check(*given, pgd.robust, seed=0)
    flags += steps_flags(check.few_correct, check.many_correct)
    flags += curve_flags(epsilon_curve(*given, seed=0), classes=10)
    flags += planted_flags(planted_test(*given, seed=0, examples=8))
    assert verdict(flags) == Reliability(True, [])


def test_autoattack_finds_no_fault_in_it_either() -> None:
    given = (*subject(12), THREAT)
    pgd = attack_correct(*given, "pgd-20", seed=0)
    found = attack_correct(*given, "autoattack", seed=0)
    flags = library_flags(found.flags) + square_flags(found.broken_by, 12)
    flags += consistency_flags(found.robust, pgd.robust)
    assert verdict(flags) == Reliability(True, [])
    assert found.accuracy.correct <= pgd.accuracy.correct


@pytest.mark.parametrize(("grey_levels", "published"), [(2, 0.562), (4, 0.330)])
def test_pgd_leaves_what_others_measured(grey_levels: int, published: float) -> None:
    threat = ThreatModel("linf", grey_levels / 255)
    settings = PgdSettings(steps=20, step_size=0.25)  # theirs: 20 steps of epsilon / 4
    network, *examples = subject(500)
    # on the folded copy, which computes the same in less time
    given = (attack_target(network), *examples, threat, settings)
    robust = attack_correct(*given, seed=0, batch_size=250).robust

    assert float(robust.float().mean()) == pytest.approx(published, abs=0.01)
