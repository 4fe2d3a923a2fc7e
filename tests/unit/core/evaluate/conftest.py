"""The demo's network and digits as files, and a command line small enough for a test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stack.demo.digits import MEAN, STD, load_digits

CHECKPOINT = Path("stack/demo/digits_resnet8.safetensors").resolve()
NORMALISED = ["--mean", str(MEAN[0]), "--std", str(STD[0])]
# An epsilon at which the first attack breaks everything: the later ones have nothing to do.
FEW = ["--epsilon", "0.5", "--examples", "8", "--autoattack-examples", "2", "--probe-examples", "4"]


@pytest.fixture(scope="session")
def digits_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits with their split."""
    return load_digits().save(tmp_path_factory.mktemp("digits") / "digits.npz")


@pytest.fixture(scope="session")
def few_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty test images without a split."""
    digits = load_digits()
    path = tmp_path_factory.mktemp("digits") / "few.npz"
    np.savez(path, images=digits.test_images[:20], labels=digits.test_labels[:20])
    return path
