"""A robust network that others published, judged by the command on images of CIFAR-10."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cstar_core.evaluate.command import MET, UNRELIABLE, main
from tests.support import cifar10
from tests.support.checkpoints import RESNET_2B2

IMAGES = 256
ACCURACY = 0.7975  # of all 10,000 images, as published
COUNTS = ["--examples", "64", "--autoattack-examples", "2", "--probe-examples", "4"]


def test_a_published_robust_network_scores_as_published_and_breaks_as_expected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = cifar10.data_folder()
    tiles = cifar10.tiles(folder / "cifar10" / "test_00.webp")[:IMAGES]
    labels = np.load(folder / "cifar10" / "labels.npz")["test_labels"][:IMAGES]
    np.savez(tmp_path / "cifar10.npz", images=tiles, labels=labels)
    arguments = [str(folder / "checkpoints" / RESNET_2B2), "--data", str(tmp_path / "cifar10.npz")]
    arguments += ["--mean", "0.4914", "0.4822", "0.4465", "--std", "0.2471", "0.2435", "0.2616"]
    # far beyond the 4/255 it was trained against: the first attack breaks it
    status = main([*arguments, "--epsilon", "64/255", *COUNTS, "--json"])
    (network,) = json.loads(capsys.readouterr().out)["networks"]
    after = network["result"]["after"]

    assert status in (MET, UNRELIABLE)
    assert after["parameters"] == 176_230
    allowed = 3 * (ACCURACY * (1 - ACCURACY) / IMAGES) ** 0.5
    assert after["clean_accuracy"]["value"] == pytest.approx(ACCURACY, abs=allowed)
    assert after["robust_accuracy"]["pgd-20"]["value"] < 0.1
    assert after["robust_accuracy"]["autoattack"]["value"] == 0.0
