"""Phase `fine_tuning`: adversarial training of the small network, whatever it is made of."""

from __future__ import annotations

from cstar_core.pipeline.observer import Observer
from cstar_core.pipeline.state import State
from cstar_core.pipeline.training_phase import train_compressed
from cstar_core.pipeline.workbench import Workbench

PHASE = "fine_tuning"


def run(workbench: Workbench, state: State, observer: Observer) -> None:
    """Train the compressed network; the epoch kept is the best on held-out training images."""
    train_compressed(workbench, state, observer, phase=PHASE)
