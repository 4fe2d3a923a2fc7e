"""The images a network is judged on: the test split, or every image where there is none."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cstar_core.errors import InvalidDataset
from cstar_core.evaluate.data import read_evaluated
from cstar_core.files.datasets import load_dataset
from stack.demo.digits import load_digits


def test_a_file_with_a_split_is_judged_on_its_test_images(digits_file: Path) -> None:
    found, digits = read_evaluated(digits_file), load_digits()
    assert not found.whole
    assert np.array_equal(found.images, digits.test_images)
    assert np.array_equal(found.labels, digits.test_labels)
    assert found.sha256 == load_dataset(digits_file).sha256


def test_a_file_without_a_split_is_judged_on_whole(few_digits: Path) -> None:
    found = read_evaluated(few_digits)
    assert found.whole
    assert len(found) == 20
    assert found.shape == (1, 8, 8)


def test_examples_are_channels_first(few_digits: Path) -> None:
    found = read_evaluated(few_digits)
    examples = found.examples(torch.device("cpu"))
    assert examples.images.shape == (20, 1, 8, 8)
    assert np.array_equal(examples.images[3, 0].numpy(), found.images[3, :, :, 0])


def test_another_image_makes_another_digest(few_digits: Path, tmp_path: Path) -> None:
    with np.load(few_digits) as arrays:
        images, labels = arrays["images"].copy(), arrays["labels"]
    images[7, 0, 0, 0] ^= 1
    np.savez(tmp_path / "other.npz", images=images, labels=labels)
    assert read_evaluated(tmp_path / "other.npz").sha256 != read_evaluated(few_digits).sha256


def test_a_zip_of_class_folders_is_read(tmp_path: Path) -> None:
    path = tmp_path / "animals.ZIP"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
            picture = io.BytesIO()
            Image.new("RGB", (8, 8)).save(picture, "png")
            archive.writestr(name, picture.getvalue())
    found = read_evaluated(path)
    assert (len(found), found.class_names, found.whole) == (3, ("cat", "dog"), True)


def test_a_label_that_no_network_of_so_few_classes_knows_is_refused(few_digits: Path) -> None:
    found = read_evaluated(few_digits)
    found.check_classes(10)
    with pytest.raises(InvalidDataset, match="label 9"):
        found.check_classes(9)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match="there is no file"):
        read_evaluated(tmp_path / "nothing.npz")
