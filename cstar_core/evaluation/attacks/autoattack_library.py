"""The one place that touches `pyautoattack`: its objects, their settings, its side effects.

The library draws from torch's global generator and resets the interpreter's trace function; both
are given back here. Its warnings, meant for a console, become codes.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from pyautoattack import AutoAttack
from torch import Tensor, nn

from cstar_core.attacks import ThreatModel

_STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
# The targeted DLR loss compares the four largest logits, so it needs four classes.
_WITHOUT_DLR = ("apgd-ce", "fab", "square")
_LIBRARY_NORMS = {"linf": "Linf", "l2": "L2"}
# What the library's warnings mean, by a stable code.
_WARNING_CODES = {
    "randomized defense": "not_deterministic",
    "probability distribution": "softmax_output",
    "zero gradient": "zero_gradients",
    "dynamic defense": "dynamic_model",
}


@dataclass(frozen=True)
class Suite:
    """Which attacks are run, and under which name: `standard` is only said of the standard."""

    attacks: tuple[str, ...]
    classes: int

    @property
    def name(self) -> str:
        """`autoattack-standard`, or the names of the attacks."""
        return "autoattack-standard" if self.attacks == _STANDARD else "+".join(self.attacks)

    @property
    def targets(self) -> int:
        """Target classes of the targeted attacks: 9, or every other class if there are fewer."""
        return min(9, self.classes - 1)


def suite_for(
    classes: int, attacks: tuple[str, ...] | None = None, *, with_square: bool = True
) -> Suite:
    """The standard suite from four classes up, else APGD-CE, FAB and Square under their names.

    Or the `attacks` given; without Square where it cannot run (`square_runs`), which then is no
    standard suite. Raises ValueError for fewer than two classes and unknown attacks.
    """
    if classes < 2:
        raise ValueError(f"a classifier has at least 2 classes, got {classes}")
    if attacks is not None and not set(attacks) <= _FIELDS.keys():
        raise ValueError(f"unknown attacks in {attacks}; use some of {sorted(_FIELDS)}")
    chosen = attacks or (_STANDARD if classes >= 4 else _WITHOUT_DLR)
    return Suite(tuple(name for name in chosen if with_square or name != "square"), classes)


def square_runs(threat: ThreatModel, images: Tensor) -> bool:
    """Whether the library's Square takes images of this size, (N, C, H, W).

    Under L2 it lays tiles of a fifth of the height over the image, which do not fit every side.
    """
    return threat.norm != "l2" or all(_tiles_fit(side) for side in images.shape[2:])


def _tiles_fit(side: int) -> bool:
    tile = side // 5
    end = (side - 5 * tile) // 2 + side // max(tile, 1) * tile
    return tile == 1 or (tile > 1 and end <= side)  # a tile of one pixel may lie outside


def perturb(library: Any, attack: str, images: Tensor, labels: Tensor) -> Tensor:
    """What one attack of `library` makes of the images; those it cannot break are unchanged."""
    library.attacks_to_run = [attack]
    adversarial, _ = library.run_standard_evaluation(images, labels, batch_size=len(images))
    return torch.as_tensor(adversarial)


def library_attack(
    model: nn.Module,
    suite: Suite,
    threat: ThreatModel,
    *,
    seed: int,
    device: torch.device,
    flags: set[str] | None = None,
) -> Any:
    """The library's object for `suite`, silent, its warnings collected in `flags`."""
    standard = suite.attacks == _STANDARD
    library = AutoAttack(
        model,
        attacks=None if standard else list(suite.attacks),
        version="standard" if standard else "custom",
        norm=_LIBRARY_NORMS[threat.norm],
        eps=threat.epsilon,
        seed=seed,
        device=device,
    )
    library.apgd_targeted.n_target_classes = library.fab.n_target_classes = suite.targets
    logger = logging.Logger("autoattack", level=logging.WARNING)  # not in the global hierarchy
    logger.addHandler(_FlagHandler(set() if flags is None else flags))
    library.logger = library.apgd.logger = library.apgd_targeted.logger = logger
    return library


class _FlagHandler(logging.Handler):
    """Turns the library's warnings into stable codes."""

    def __init__(self, flags: set[str]) -> None:
        super().__init__()
        self.flags = flags

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        codes = [code for text, code in _WARNING_CODES.items() if text in message]
        self.flags |= set(codes or ["library_warning"])


@contextlib.contextmanager
def library_contained(device: torch.device) -> Iterator[None]:
    """Give back the global random state and the trace function that the library changes."""
    trace = sys.gettrace()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            sys.settrace(trace)


def suite_settings(
    suite: Suite, threat: ThreatModel, *, seed: int, batch_size: int
) -> dict[str, Any]:
    """Library, version, suite and the hyper-parameters that the library's objects carry."""
    library = library_attack(nn.Identity(), suite, threat, seed=0, device=torch.device("cpu"))
    return {
        "suite": suite.name,
        "attacks": {attack: _parameters(library, attack) for attack in suite.attacks},
        "library": "pyautoattack",
        "library_version": importlib.metadata.version("pyautoattack"),
        "attacked": "the model with batch norms folded; verdicts by it and by the model",
        "threat": threat.to_json(),
        "classes": suite.classes,
        "seed": seed,
        "batch_size": batch_size,
    }


_FIELDS = {
    "apgd-ce": ("apgd", ("n_iter", "n_restarts")),
    "apgd-t": ("apgd_targeted", ("n_iter", "n_restarts", "n_target_classes")),
    "fab": ("fab", ("n_iter", "n_restarts")),
    "fab-t": ("fab", ("n_iter", "n_restarts", "n_target_classes")),
    "square": ("square", ("n_queries", "n_restarts", "p_init")),
}


def _parameters(library: Any, attack: str) -> dict[str, int | float]:
    part, fields = _FIELDS[attack]
    return {field: getattr(getattr(library, part), field) for field in fields}
