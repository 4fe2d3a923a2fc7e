from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from cstar_core.evaluation.latency.timing import measure_latency


class Spy(nn.Module):
    """Writes its name and the batch size of every call into a shared log."""

    def __init__(self, name: str, log: list[tuple[str, int]]) -> None:
        super().__init__()
        self.name, self.log = name, log

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        self.log.append((self.name, len(x)))
        return x


def test_models_take_turns_at_every_batch_size_after_warming_up() -> None:
    log: list[tuple[str, int]] = []
    models = {name: Spy(name, log) for name in ("dense", "compressed")}
    measure_latency(models, (3, 4, 4), batch_sizes=(1, 2), repeats=2, warmup=1)
    turn = [("dense", 1), ("compressed", 1)]
    assert log == turn * 3 + [(name, 2) for name, _ in turn] * 3


def test_a_summary_is_ordered_json_per_model_and_batch_size() -> None:
    latencies = measure_latency(
        {"dense": nn.Conv2d(3, 4, 3)}, (3, 8, 8), batch_sizes=(1, 32), repeats=4, warmup=0
    )
    small, large = json.loads(json.dumps([row.to_json() for row in latencies["dense"]]))
    assert (small["batch_size"], large["batch_size"]) == (1, 32)
    assert 0 < small["lower_quartile_ms"] <= small["median_ms"] <= small["upper_quartile_ms"]
    assert small["repeats"] == 4


def test_one_repeat_has_no_spread_and_is_refused() -> None:
    with pytest.raises(ValueError, match="repeats >= 2"):
        measure_latency({}, (3, 8, 8), repeats=1)
