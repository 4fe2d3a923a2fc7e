"""The demo's network and digits as files, and a command line small enough for a test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from cstar_core.architectures import Architecture, build
from cstar_core.files.checkpoints import write_weights
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


@dataclass(frozen=True)
class Pair:
    """Files of two small networks and of 300 images, which `after` classifies without a mistake."""

    after: Path
    before: Path
    data: Path
    normalised: tuple[str, ...] = ("--mean", "0.5", "--std", "0.05")


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Networks with random weights; the one before knows the classes of the one after not well."""
    folder = tmp_path_factory.mktemp("pair")
    sizes = {"width": 4, "in_channels": 1, "num_classes": 3, "hidden": 8}
    after, before = (build(Architecture("small_cnn_mnist", sizes), seed=seed) for seed in (4, 5))
    source = torch.Generator().manual_seed(0)
    dark = torch.rand(300, 1, 1, 1, generator=source) * torch.rand(300, 7, 7, 1, generator=source)
    images = (255 * dark).to(torch.uint8).repeat_interleave(4, 1).repeat_interleave(4, 2)
    with torch.no_grad():
        pixels = images.permute(0, 3, 1, 2) / 255
        labels = after.eval()((pixels - 0.5) / 0.05).argmax(1)
    assert len(labels.unique()) > 1
    for name, network in (("after", after), ("before", before)):
        write_weights(network.state_dict(), folder / f"{name}.safetensors")
    np.savez(folder / "data.npz", images=images.numpy(), labels=labels.numpy())
    paths = (folder / name for name in ("after.safetensors", "before.safetensors", "data.npz"))
    return Pair(*paths)
