"""The store and the API start without torch: its import takes longer than a request may."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
heavy = {"torch", "onnx", "onnxruntime", "cstar_core"} & set(sys.modules)
print(*sorted(heavy))
"""


@pytest.mark.parametrize("package", ["store", "api"])
def test_no_module_of_the_package_imports_torch(package: str) -> None:
    process = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, package],
        check=True,
        capture_output=True,
        text=True,
    )
    assert process.stdout.strip() == ""


@pytest.mark.parametrize("module", ["store.leases", "api.main"])
def test_the_packages_are_those_that_are_meant(module: str) -> None:
    assert importlib.util.find_spec(module) is not None
