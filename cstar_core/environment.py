"""On what a run was made: versions and hardware, for reports."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from typing import Any

import torch

LIBRARIES = ("torch", "numpy", "safetensors", "onnx", "onnxruntime", "pillow", "pyautoattack")


def environment(threads: int) -> dict[str, Any]:
    """Return versions of what computed the result and the hardware it ran on."""
    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "platform": platform.platform(terse=True),
        "processors": os.cpu_count(),
        "threads": threads,
        "gpu": torch.cuda.get_device_name() if cuda else None,
    }
