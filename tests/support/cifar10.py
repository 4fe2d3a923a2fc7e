"""CIFAR-10 and the published checkpoints, where they are at hand: never part of the project."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.support.requirements import require

VARIABLE = "CSTAR_TEST_DATA_DIR"
TILE = 32
FILES = {"train": 25, "test": 5}


def data_folder() -> Path:
    """Return the folder with `cifar10/` and `checkpoints/`; without it the test is not run."""
    folder = Path(os.environ.get(VARIABLE, "../shared/data"))
    here = (folder / "cifar10" / "labels.npz").exists()
    why = f"not in {folder} (set {VARIABLE})"
    require("CIFAR-10 and the published networks", here, why, installable=VARIABLE in os.environ)
    return folder


def pack(folder: Path, path: Path) -> Path:
    """Write all 60,000 images as the `.npz` that `POST /v1/datasets` takes."""
    labels = np.load(folder / "cifar10" / "labels.npz")
    arrays: dict[str, NDArray[np.generic]] = {}
    for split, count in FILES.items():
        names = [f"{split}_{number:02d}.webp" for number in range(count)]
        arrays[f"{split}_images"] = np.concatenate(
            [tiles(folder / "cifar10" / name) for name in names]
        )
        arrays[f"{split}_labels"] = labels[f"{split}_labels"].astype(np.int64)
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def tiles(path: Path) -> NDArray[np.uint8]:
    mosaic = np.asarray(Image.open(path).convert("RGB"))
    rows, columns = mosaic.shape[0] // TILE, mosaic.shape[1] // TILE
    grid = mosaic.reshape(rows, TILE, columns, TILE, 3).swapaxes(1, 2)
    return grid.reshape(-1, TILE, TILE, 3)
