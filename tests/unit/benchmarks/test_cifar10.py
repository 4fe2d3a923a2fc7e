from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import cifar10
from benchmarks.cifar import table
from benchmarks.cifar.data import BINARY, MOSAICS, load
from benchmarks.cifar.parts import join, split
from benchmarks.cifar.presets import PRESETS, Preset
from benchmarks.cifar.stage import Clock, claimed
from benchmarks.cifar.work import DENSE, Bench, Unit, work
from cstar_core.architectures import Architecture
from cstar_core.files.arrays import DatasetArrays
from cstar_core.pipeline.profiles import adapt


class Questions(Clock):
    """Is over at the `last`-th time it is asked."""

    def __init__(self, last: int) -> None:
        self.left = last

    def over(self) -> bool:
        self.left -= 1
        return self.left <= 0


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    """The command sets the number of threads for its process, which here is that of all tests."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the official binary format: 20 training images a file, 20 test images."""
    folder = tmp_path_factory.mktemp("binary")
    random = np.random.default_rng(0)
    for names in BINARY.values():
        for name in names:
            labels = np.arange(20, dtype=np.uint8)[:, None] % 10
            pixels = random.integers(0, 256, (20, 3072), dtype=np.uint8)
            (folder / name).write_bytes(np.hstack([labels, pixels]).tobytes())
    return folder


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Preset:
    """A preset that is run whole in a second; known to the command as `tiny`."""
    usual = PRESETS["resnet8"]
    profile = adapt(
        usual.profile, dense_epochs=2, admm_epochs=1, finetune_epochs=1, examples_per_epoch=64
    )
    preset = replace(
        usual,
        name="tiny",
        architecture=Architecture("resnet8_cifar", {"width": 2}),
        profile=replace(profile, held_out=20),
        ratios=(2.0,),
        seeds=(0,),
        methods=("cstar",),
        examples=8,
    )
    monkeypatch.setitem(PRESETS, "tiny", preset)
    return preset


def bench_of(preset: Preset, data: DatasetArrays, folder: Path) -> Bench:
    return Bench(preset, data, folder, torch.device("cpu"), code="test")


def test_binary_records_are_label_then_planes(binary: Path) -> None:
    data = load(binary)
    record = np.frombuffer((binary / BINARY["train"][1]).read_bytes(), np.uint8)[:3073]
    assert data.train_images.shape == (100, 32, 32, 3)
    assert data.train_labels[20] == record[0]
    assert data.train_images[20, 0, 5, 2] == record[1 + 2 * 1024 + 5]


def test_mosaics_give_the_images_back(binary: Path, tmp_path: Path) -> None:
    wanted = load(binary)
    labels = {}
    for name, count in MOSAICS.items():
        images = getattr(wanted, f"{name}_images")
        labels[f"{name}_labels"] = getattr(wanted, f"{name}_labels").astype(np.uint8)
        for number, tiles in enumerate(np.split(images, count)):
            rows = tiles.reshape(2, -1, 32, 32, 3).swapaxes(1, 2).reshape(64, -1, 3)
            Image.fromarray(np.ascontiguousarray(rows)).save(
                tmp_path / f"{name}_{number:02d}.webp", lossless=True
            )
    np.savez(tmp_path / "labels.npz", **labels)
    assert load(tmp_path).sha256 == wanted.sha256


def test_a_folder_of_something_else_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="binary version"):
        load(tmp_path)


def test_the_grid_runs_and_is_written_as_a_table(
    tiny: Preset, binary: Path, tmp_path: Path
) -> None:
    state, output = tmp_path / "state", tmp_path / "results"
    command = ["run", "--preset", "tiny", "--data", str(binary), "--state", str(state)]
    assert cifar10.main([*command, "--code", "test"]) == 0
    assert cifar10.main(["table", "--state", str(state), "--output", str(output)]) == 0
    content = json.loads((output / "cifar10_tiny.json").read_text())
    cell = next(result for result in content["results"] if result["method"] == "cstar")
    assert cell["ratio"] >= 2
    assert cell["test"]["pgd-20"]["n"] == cell["test_after_projection"]["pgd-20"]["n"] == 8
    assert "| cstar | 1 |" in (output / "cifar10_tiny.md").read_text()


def test_work_is_left_when_the_stage_has_no_time(
    tiny: Preset, binary: Path, tmp_path: Path
) -> None:
    command = ["run", "--preset", "tiny", "--data", str(binary), "--state", str(tmp_path)]
    assert cifar10.main([*command, "--minutes", "0"]) == cifar10.WORK_LEFT
    assert not (tmp_path / "seed0").exists()


def test_interrupted_at_every_question_the_result_is_the_same(
    tiny: Preset, binary: Path, tmp_path: Path
) -> None:
    data, results = load(binary), []
    for name, questions in (("whole", 10**6), ("pieces", 3)):
        bench = bench_of(tiny, data, tmp_path / name)
        for unit in (Unit(0, DENSE), Unit(0, "cstar", 2.0)):
            (bench.folder / unit.path).mkdir(parents=True)
            while not work(bench, unit, Questions(questions)):
                assert questions == 3
            result = json.loads((bench.folder / unit.path / "result.json").read_text())
            results.append({k: v for k, v in result.items() if k != "seconds"})
    assert results[:2] == results[2:]


def test_a_claimed_folder_is_left_to_its_worker(tmp_path: Path) -> None:
    with claimed(tmp_path / "unit") as first, claimed(tmp_path / "unit") as second:
        assert (first, second) == (True, False)
    with claimed(tmp_path / "unit") as again:
        assert again


def test_parts_are_small_and_give_the_folder_back(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "seed0"
    folder.mkdir(parents=True)
    content = np.random.default_rng(0).bytes(300_000)
    (folder / "state.pt").write_bytes(content)
    (folder / "lock").touch()
    written = split(tmp_path / "state", tmp_path / "parts", part_bytes=100_000)
    assert len(written) == 4
    assert max(path.stat().st_size for path in written) <= 100_000
    join(tmp_path / "parts", tmp_path / "joined")
    assert (tmp_path / "joined" / "seed0" / "state.pt").read_bytes() == content
    assert not (tmp_path / "joined" / "seed0" / "lock").exists()


def test_a_damaged_part_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "state.pt").write_bytes(b"x" * 1000)
    (part,) = split(tmp_path / "state", tmp_path / "parts")
    part.write_bytes(part.read_bytes()[:-1] + b"y")
    with pytest.raises(ValueError, match="copy them again"):
        join(tmp_path / "parts", tmp_path / "joined")


def result_of(method: str, seed: int, robust: float) -> dict[str, Any]:
    figure = {"value": robust, "n": 100, "interval": [robust, robust]}
    return {
        "method": method,
        "seed": seed,
        "ratio_wanted": 4.0,
        "ratio": 4.1,
        "macs": 1e6,
        "seconds": 60.0,
        "test": {"clean": figure, "pgd-20": figure},
        "phases": {},
    }


def test_differences_are_paired_by_seed() -> None:
    results = [result_of("cstar", seed, 0.3 + 0.1 * seed) for seed in (0, 1, 2)]
    results += [result_of("uniform_ranks", seed, 0.2 + 0.1 * seed) for seed in (2, 1)]
    row = table._differences(results).splitlines()[-1]
    assert row == "| uniform_ranks | - | +10.0 ± 0.0 | +10.0 ± 0.0 |"


def test_results_of_unlike_settings_are_not_mixed() -> None:
    one = {"preset": "a", "environment": {}, "split_sha256": "0"}
    with pytest.raises(ValueError, match="keep them apart"):
        table.document([one, one | {"preset": "b"}])
