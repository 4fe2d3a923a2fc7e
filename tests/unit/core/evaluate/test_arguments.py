"""The command line: what it understands, and what it refuses with a line that says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from cstar_core.errors import InvalidDataset
from cstar_core.evaluate.arguments import Arguments, parse

LEAST = ["a.pth", "--data", "d.npz", "--epsilon", "8/255"]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        parse([*LEAST, *arguments])
    assert ended.value.code == 2
    return capsys.readouterr().err


def counts(asked: Arguments, available: int) -> tuple[int, int, int]:
    settings = asked.settings(available)
    return settings.examples, settings.autoattack_examples, settings.probe_examples


@pytest.mark.parametrize(
    ("text", "value"), [("8/255", 8 / 255), ("0.0314", 0.0314), ("1e-2", 0.01), ("1", 1.0)]
)
def test_an_epsilon_is_a_fraction_or_a_number(text: str, value: float) -> None:
    assert parse([*LEAST, "--epsilon", text]).threat.epsilon == value


@pytest.mark.parametrize("text", ["0", "-1/255", "8/0", "big", "nan", "inf", "8"])
def test_an_epsilon_that_is_none_is_refused(capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert "epsilon" in refused(capsys, f"--epsilon={text}")


def test_an_l2_epsilon_may_be_above_1() -> None:
    threat = parse([*LEAST, "--epsilon", "2", "--norm", "l2"]).threat
    assert (threat.norm, threat.epsilon) == ("l2", 2.0)


def test_several_networks_and_all_that_is_said_of_reading_them() -> None:
    asked = parse(["a.pth", "b", *LEAST[1:], "--mean", "0.5", "0.4", "--std", "1", "2"])
    assert asked.models == (Path("a.pth"), Path("b"))
    assert (asked.reading.mean, asked.reading.std) == ([0.5, 0.4], [1.0, 2.0])
    assert asked.reading.architecture is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--mean", "0.5"], "--mean and --std belong together"),
        (["--architecture", "alexnet"], "resnet20_cifar"),
        (["--min-robust", "30"], "not in [0, 1]"),
        (["--examples", "0"], "at least 1"),
        (["--examples", "many"], "no number"),
        (["--device", "tpu"], "invalid choice"),
    ],
)
def test_a_mistake_is_named(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert words in refused(capsys, *arguments)


def test_defaults_shrink_to_the_images_there_are() -> None:
    asked = parse(LEAST)
    assert counts(asked, 10_000) == (1000, 64, 256)
    assert counts(asked, 100) == (100, 64, 100)
    assert counts(parse([*LEAST, "--examples", "40"]), 10_000) == (40, 40, 40)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["--examples", "101"], "--examples"),
        (["--examples", "10", "--autoattack-examples", "11"], "--autoattack-examples"),
        (["--probe-examples", "101"], "--probe-examples"),
    ],
)
def test_more_images_than_there_are_is_refused(arguments: list[str], name: str) -> None:
    with pytest.raises(InvalidDataset, match=name):
        parse([*LEAST, *arguments]).settings(100)


def test_help_says_what_every_exit_status_means(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    statuses = ("0  evaluated", "1  evaluated", "2  wrong usage", "3  evaluated", "130 stopped")
    assert all(status in text for status in statuses)
    assert text.count("python -m cstar_core.evaluate") == 3  # usage and two examples
