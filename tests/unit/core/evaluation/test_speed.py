from __future__ import annotations

import json

import pytest

from cstar_core.evaluation.latency.speed import RuntimeLatencies, words
from cstar_core.evaluation.latency.timing import Latency


def figure(median: float, spread: float = 0.02) -> Latency:
    """A median in ms, its quartiles this share of it away."""
    return Latency(1, median, median * (1 - spread), median * (1 + spread), 50)


def latencies(**pairs: tuple[Latency, Latency]) -> RuntimeLatencies:
    """Before and after by place: `torch_1` is torch at batch 1."""
    runtimes: dict[str, dict[str, dict[str, Latency]]] = {}
    for place, (before, after) in pairs.items():
        runtime, batch = place.rsplit("_", 1)
        figures = runtimes.setdefault(runtime, {"before": {}, "after": {}})
        figures["before"][f"batch {batch}"] = before
        figures["after"][f"batch {batch}"] = after
    return RuntimeLatencies(runtimes, {}, threads=1, seconds=5.0)


SAME = (figure(1.0), figure(1.01))
FASTER = (figure(1.8), figure(1.0))
BARELY = (figure(1.07), figure(1.0))
SLOWER = (figure(1.0), figure(1.3))

CASES = [
    (latencies(torch_1=SAME, torch_32=SAME), "smaller, not faster"),
    (latencies(torch_1=SAME, onnxruntime_1=SLOWER),
     "smaller, not faster (1.3x slower at batch 1 in onnxruntime)"),
    (latencies(torch_1=SLOWER, torch_32=(figure(1), figure(2))),
     "smaller, not faster (up to 2.0x slower at batch 32 in torch)"),
    (latencies(onnxruntime_1=FASTER), "smaller and faster (1.8x at batch 1 in onnxruntime)"),
    (latencies(torch_1=BARELY), "smaller and faster (1.07x at batch 1 in torch)"),
    (latencies(torch_1=BARELY, openvino_32=FASTER),
     "smaller and faster (up to 1.8x at batch 32 in openvino)"),
    (latencies(torch_1=SAME, torch_32=SAME, onnxruntime_1=FASTER),
     "smaller and faster (1.8x at batch 1 in onnxruntime; no clear difference in 2 of 3 timings)"),
    (latencies(torch_1=SLOWER, onnxruntime_1=FASTER, onnxruntime_32=SAME),
     "smaller, faster in places (1.8x at batch 1 in onnxruntime), "
     "slower in others (1.3x at batch 1 in torch)"),
    (latencies(), "smaller, speed not measured"),
]  # fmt: skip


@pytest.mark.parametrize(("measured", "said"), CASES, ids=[said for _, said in CASES])
def test_the_words_say_what_was_measured_and_no_more(measured: RuntimeLatencies, said: str) -> None:
    assert words(measured, 4.5) == said


def test_a_gain_within_the_noise_is_none() -> None:
    noisy = (figure(1.8, spread=0.5), figure(1.0, spread=0.2))
    assert words(latencies(torch_1=noisy), 4.5) == "smaller, not faster"


def test_a_gain_below_five_percent_is_none_however_certain() -> None:
    certain = (figure(1.04, spread=0.001), figure(1.0, spread=0.001))
    assert words(latencies(torch_1=certain), 4.5) == "smaller, not faster"
    assert words(latencies(torch_1=certain[::-1]), 4.5) == "smaller, not faster"


def test_a_network_that_is_no_smaller_is_not_called_so() -> None:
    assert words(latencies(torch_1=SAME), 1.0) == "not smaller, not faster"
    assert words(latencies(torch_1=FASTER), 1.0).startswith("not smaller but faster (1.8x")


def test_a_batch_that_only_one_of_the_two_has_is_not_compared() -> None:
    alone = RuntimeLatencies(
        {"torch": {"before": {"batch 1": figure(9)}, "after": {"batch 32": figure(1)}}},
        {},
        threads=1,
        seconds=5.0,
    )
    assert words(alone, 2) == "smaller, speed not measured"


def test_the_json_has_every_figure_what_was_skipped_and_the_words() -> None:
    measured = RuntimeLatencies(
        latencies(torch_1=FASTER).runtimes, {"openvino": "not here"}, threads=2, seconds=5.0
    )
    stored = json.loads(json.dumps(measured.to_json(smaller_by=2.0, on_device=None)))
    assert stored["runtimes"]["torch"]["before"]["batch 1"]["median_ms"] == 1.8
    assert stored["skipped"] == {"openvino": "not here"}
    assert stored["words"] == "smaller and faster (1.8x at batch 1 in torch)"
    assert (stored["device"], stored["threads"], stored["on_device"]) == ("cpu", 2, None)
