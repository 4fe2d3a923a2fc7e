"""The benchmarks' own machinery: turns, verdicts, results as JSON and as a page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import __main__ as command
from benchmarks import evaluation, machine
from benchmarks.harness import (
    FEWEST_ROUNDS,
    MOST_ROUNDS,
    Settings,
    Timing,
    Unavailable,
    interleave,
)
from benchmarks.networks import Subject, random_batch
from benchmarks.page import line, page
from benchmarks.ranks import p7
from benchmarks.rows import Bar, Results, Row, speed_up
from cstar_core.attacks import ThreatModel
from cstar_core.evaluation.attacks.robustness import PgdSettings, pgd_correct, predict

TIMINGS = {"ours": Timing(2.0, 1.9, 2.2, 5), "peer": Timing(5.0, 4.9, 5.5, 5)}
FASTER = speed_up("P5", "projection", TIMINGS, ours="ours", peer="peer", bar=Bar(2, 4))
SHARE = Row("P8", "share", "ours", "all", 3.0, unit="%", bar=Bar(2, 0.2, smaller_is_better=True))
EXPLANATION = speed_up("P5", "as before", TIMINGS, ours="peer", peer="ours", note="a remark")
ENVIRONMENT = {
    "hardware": "a processor",
    "threads": 1,
    "load_averages": [0.5, 2.5],
    "sgemm_gflops": 50.0,
    "python": "3.11",
    "libraries": {"torch": "2.13"},
    "seed": 0,
    "commit": "abc",
    "images": "random",
}


@pytest.fixture
def results() -> Results:
    return Results((FASTER, SHARE, EXPLANATION), {"P16": "no GPU here"}, ENVIRONMENT)


def test_candidates_take_turns() -> None:
    order: list[str] = []
    timings = interleave(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, seconds=0, warmup=1
    )
    assert order == ["a", "b"] * (1 + FEWEST_ROUNDS)
    assert {timing.rounds for timing in timings.values()} == {FEWEST_ROUNDS}


def test_rounds_end_even_if_nothing_takes_time() -> None:
    assert interleave({"nothing": lambda: None}, seconds=1e9)["nothing"].rounds == MOST_ROUNDS


def test_a_timing_has_the_quartiles_in_milliseconds() -> None:
    assert Timing.of([0.001, 0.002, 0.003, 0.004, 0.005]) == Timing(3.0, 2.0, 4.0, 5)


@pytest.mark.parametrize(
    ("row", "met"),
    [(FASTER, True), (SHARE, False), (EXPLANATION, None)],
    ids=["met", "missed", "no bar"],
)
def test_a_row_says_whether_it_reaches_its_bar(row: Row, met: bool | None) -> None:
    assert row.met is met


def test_a_speed_up_is_the_ratio_of_the_medians() -> None:
    assert FASTER.figure == 2.5
    assert EXPLANATION.figure == 0.4


def test_results_survive_json(results: Results) -> None:
    assert Results.from_json(results.to_json()) == results


def test_the_page_shows_every_row_and_every_skipped_target(results: Results) -> None:
    text = page(results)
    assert "| P5 | 2.5x | ≥ 2x | 4x | met |" in text
    assert "| P8 | 3% | ≤ 2% | 0.2% | missed |" in text
    assert "load average 0.5 to 2.5" in text
    assert "1 of 2 rows with a bar reach it." in text
    assert "- P5, as before: a remark" in text
    assert "- P16 was not measured: no GPU here" in text


def test_a_line_names_both_sides() -> None:
    assert re.search(r"P8 +3% +≤ 2% missed +share: ours beside all", line(SHARE))


def test_a_measured_row_is_one_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    small = Subject.of("resnet8_cifar", seed=0)
    monkeypatch.setattr(Subject, "of", lambda *_, **__: small)
    rows = list(p7(Settings(seconds=0)))
    assert [row.id for row in rows] == ["P7"] * len(rows)
    assert sum(row.bar is not None for row in rows) == 1
    assert all(row.figure > 0 for row in rows)


def test_what_is_missing_is_said_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(_: Settings) -> Iterator[Row]:
        raise Unavailable("torchattacks is missing")
        yield

    monkeypatch.setattr(machine, "describe", lambda _: ENVIRONMENT)
    monkeypatch.setattr(command, "TARGETS", {"P9": missing, "P5": lambda _: iter([FASTER])})
    first, found = command.run(["P9", "P5"], Settings())
    assert first.rows == ()
    assert found.rows == (FASTER,)
    assert found.skipped == {"P9": "torchattacks is missing"}
    assert "P9   not measured: torchattacks is missing" in capsys.readouterr().out


def test_full_pgd_and_early_drop_agree() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10, bias=False))
    nn.init.normal_(model[1].weight, generator=torch.Generator().manual_seed(0))
    pixels, _ = random_batch(20, seed=1)
    images = pixels.float() / 255
    labels = predict(model, images)
    threat = ThreatModel("linf", 3 / 255)
    full = evaluation.full_pgd(model, images, labels, threat, seed=0)
    settings = PgdSettings(evaluation.STEPS)
    early = pgd_correct(model, images, labels, threat, settings=settings, seed=0)
    assert 0 < early.sum() < len(early)
    assert torch.equal(full, early)


def test_hardware_is_told_without_names_of_hosts_or_paths() -> None:
    told = machine.hardware()
    assert "cores" in told
    assert str(Path.home()) not in told
