"""Splitting, hashing and keeping a data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cstar_core.errors import InvalidDataset
from cstar_core.files.datasets import (
    DatasetArrays,
    LabelledImages,
    RawDataset,
    as_tensors,
    hold_out,
    load_dataset,
    split,
    write_dataset,
)


def raw(labels: NDArray[np.int64], *, class_names: tuple[str, ...] | None = None) -> RawDataset:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (len(labels), 4, 5, 3), dtype=np.uint8)
    return RawDataset(train=LabelledImages(images, labels), class_names=class_names)


def balanced(classes: int = 4, each: int = 10) -> NDArray[np.int64]:
    return np.arange(classes * each) % classes


class_sizes = st.lists(st.integers(1, 30), min_size=1, max_size=8)


@settings(deadline=None)
@given(sizes=class_sizes, seed=st.integers(0, 2**32), data=st.data())
def test_held_out_part_is_stratified_and_complete(
    sizes: list[int], seed: int, data: st.DataObject
) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    most = len(labels) - len(sizes)
    count = data.draw(st.integers(0, most))
    if count == 0:
        return
    train, held_out = hold_out(labels, seed=seed, count=count)
    assert len(held_out) == count
    assert np.array_equal(np.sort(np.concatenate([train, held_out])), np.arange(len(labels)))
    assert (np.diff(train) > 0).all()
    assert (np.diff(held_out) > 0).all()
    kept = np.bincount(labels[train], minlength=len(sizes))
    assert (kept >= 1).all()


@settings(deadline=None)
@given(sizes=st.lists(st.integers(4, 40), min_size=2, max_size=8), share=st.floats(0.1, 0.5))
def test_every_class_gives_its_share_within_one_example(sizes: list[int], share: float) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    count = round(len(labels) * share)
    if count == 0:
        return
    _, held_out = hold_out(labels, seed=0, count=count)
    exact = count * np.array(sizes) / len(labels)
    assert (np.abs(np.bincount(labels[held_out], minlength=len(sizes)) - exact) < 1 + 1e-9).all()


def test_same_seed_holds_out_the_same_examples_and_another_seed_others() -> None:
    first, again, other = (hold_out(balanced(), seed=seed, fraction=0.25)[1] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_split_of_a_seed_never_changes() -> None:
    assert hold_out(balanced(3, 4), seed=0, count=3)[1].tolist() == [1, 3, 11]


def test_fraction_is_of_all_examples() -> None:
    train, held_out = hold_out(balanced(), seed=0, fraction=0.1)
    assert (len(train), len(held_out)) == (36, 4)


@pytest.mark.parametrize("count", [0, -1, 37, 40, 100])
def test_part_that_would_empty_a_class_is_refused(count: int) -> None:
    with pytest.raises(InvalidDataset) as refusal:
        hold_out(balanced(), seed=0, count=count)
    assert refusal.value.code == "too_few_examples"


@pytest.mark.parametrize("given", [{}, {"fraction": 0.1, "count": 3}])
def test_hold_out_needs_either_fraction_or_count(given: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="either fraction or count"):
        hold_out(balanced(), seed=0, **given)


def test_service_split_is_stratified_and_disjoint() -> None:
    arrays = split(raw(balanced()), seed=3)
    assert np.bincount(arrays.test_labels).tolist() == [2, 2, 2, 2]
    assert np.bincount(arrays.train_labels).tolist() == [8, 8, 8, 8]
    both = np.concatenate([arrays.train_images, arrays.test_images])
    assert len(np.unique(both.reshape(40, -1), axis=0)) == 40


def test_images_keep_their_labels_in_the_split() -> None:
    source = raw(balanced())
    arrays = split(source, seed=3)
    label_of = {
        image.tobytes(): label
        for image, label in zip(source.train.images, source.train.labels, strict=True)
    }
    for images, labels in (
        (arrays.train_images, arrays.train_labels),
        (arrays.test_images, arrays.test_labels),
    ):
        assert [label_of[image.tobytes()] for image in images] == labels.tolist()


def test_given_split_is_kept() -> None:
    whole = raw(balanced())
    given_split = RawDataset(train=whole.train, test=raw(balanced(4, 1)).train)
    arrays = split(given_split, seed=3)
    assert arrays.train_images is whole.train.images
    assert len(arrays.test_labels) == 4


def test_data_set_too_small_to_split_is_refused() -> None:
    with pytest.raises(InvalidDataset) as refusal:
        split(raw(np.array([0, 1])), seed=0)
    assert refusal.value.code == "too_few_examples"


def test_number_of_classes_follows_the_highest_label_or_the_names() -> None:
    assert split(raw(balanced(3)), seed=0).num_classes == 3
    assert split(raw(balanced(3), class_names=tuple("abcde")), seed=0).num_classes == 5


def test_shape_is_channels_first() -> None:
    assert split(raw(balanced()), seed=0).shape == (3, 4, 5)


def test_written_data_set_is_read_back(tmp_path: Path) -> None:
    arrays = split(raw(balanced(), class_names=("a", "b", "c", "ü")), seed=0)
    write_dataset(arrays, tmp_path / "d.npz")
    found = load_dataset(tmp_path / "d.npz")
    assert found.sha256 == arrays.sha256
    assert found.num_classes == 4
    assert found.class_names == ("a", "b", "c", "ü")
    assert np.array_equal(found.test_images, arrays.test_images)


def test_equal_data_sets_are_written_as_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_dataset(split(raw(balanced()), seed=0), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_data_set_without_test_split_is_not_loaded(tmp_path: Path) -> None:
    source = raw(balanced())
    np.savez(tmp_path / "d.npz", images=source.train.images, labels=source.train.labels)
    with pytest.raises(InvalidDataset) as refusal:
        load_dataset(tmp_path / "d.npz")
    assert refusal.value.code == "missing_arrays"


def arrays_with(**changes: NDArray[np.generic]) -> DatasetArrays:
    arrays = split(raw(balanced()), seed=0)
    values = {
        name: getattr(arrays, name).copy()
        for name in ("train_images", "train_labels", "test_images", "test_labels")
    }
    return DatasetArrays(**(values | changes), num_classes=4)


def test_hash_depends_on_every_array() -> None:
    arrays = arrays_with()
    hashes = {arrays.sha256}
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        hashes.add(arrays_with(**{name: np.flip(getattr(arrays, name), 0)}).sha256)
    assert len(hashes) == 5


def test_hash_does_not_depend_on_memory_layout() -> None:
    arrays = arrays_with()
    other = arrays_with(
        train_images=np.asfortranarray(arrays.train_images),
        train_labels=arrays.train_labels.astype(">i8"),
    )
    assert other.sha256 == arrays.sha256


def test_tensors_are_channels_first_in_the_unit_interval() -> None:
    images = split(raw(balanced()), seed=0).train_images
    tensors = as_tensors(images)
    assert tensors.shape == (32, 3, 4, 5)
    assert tensors.dtype == torch.float32
    assert tensors.is_contiguous()
    assert torch.equal(
        (tensors * 255).round().to(torch.uint8).permute(0, 2, 3, 1), torch.from_numpy(images)
    )


def test_making_tensors_leaves_the_images_alone() -> None:
    images = np.full((1, 1, 1, 1), 255, dtype=np.uint8)
    assert as_tensors(images).item() == 1.0
    assert images.item() == 255
