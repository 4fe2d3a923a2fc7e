from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cstar_core.attacks import Norm, ThreatModel
from cstar_core.evaluation.attacks.named import attack_correct, named_attack, worst_case
from cstar_core.evaluation.attacks.robustness import PgdSettings

from .classifiers import convolutional, predicted, problem

THREAT = ThreatModel("linf", 0.025)
NAMES = ["pgd-20", "pgd-50x5", "pgd-50-margin", "pgd-50x5-margin", "square", "autoattack"]


@pytest.mark.parametrize("name", NAMES)
def test_an_attack_is_called_what_it_was_asked_for(name: str) -> None:
    assert named_attack(name).name == name


def test_a_name_says_steps_restarts_and_loss() -> None:
    assert named_attack("pgd-50x5-margin") == PgdSettings(steps=50, restarts=5, loss="margin")
    assert named_attack("pgd-20") == PgdSettings(steps=20)


@pytest.mark.parametrize(
    "name", ["", "pgd", "pgd-0", "pgd-20x0", "pgd-20-ce", "pgd-020", "PGD-20", "pgd-20 ", "fgsm"]
)
def test_another_name_is_refused_with_what_is_understood(name: str) -> None:
    with pytest.raises(ValueError, match=r"understood are: pgd-STEPS, .* square, autoattack"):
        named_attack(name)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_by_name_finds_the_exact_verdicts_of_a_linear_model(norm: Norm) -> None:
    model, images, labels, threat, robust = problem(norm, n=20)
    result = attack_correct(model, images, labels, threat, "pgd-50-margin", seed=0)
    assert torch.equal(result.robust, robust)
    assert result.broken_by == {"pgd-50-margin": int((result.clean & ~robust).sum())}


def test_square_alone_is_not_called_autoattack() -> None:
    model, images, labels, _, _ = problem("linf", n=6)
    result = attack_correct(model, images, labels, ThreatModel("linf", 0.2), "square", seed=0)
    assert result.broken_by == {"square": int(result.clean.sum())}
    assert result.settings["suite"] == "square"
    assert result.settings["attacks"]["square"]["n_queries"] == 5000


def test_equal_seeds_give_equal_verdicts_and_are_stored() -> None:
    images, labels = predicted(convolutional())
    once, again = (
        attack_correct(convolutional(), images, labels, THREAT, "pgd-5x2", seed=5) for _ in range(2)
    )
    assert 0 < int(once.robust.sum()) < len(images)
    assert torch.equal(once.robust, again.robust)
    assert json.loads(json.dumps(once.to_json()))["settings"]["seed"] == 5


def test_the_heartbeat_of_pgd_is_heard_at_every_forward_pass() -> None:
    beats: list[None] = []
    images, labels = predicted(convolutional(), n=2)
    harmless = ThreatModel("linf", 1e-6)
    attack_correct(
        convolutional(),
        images,
        labels,
        harmless,
        "pgd-7",
        seed=0,
        heartbeat=lambda: beats.append(None),
    )
    assert len(beats) == 1 + 7 + 1


def test_the_worst_case_is_taken_per_example_and_over_attacks() -> None:
    first, second = torch.tensor([True, True, False, True]), torch.tensor([True, False, True, True])
    assert worst_case(first, second).tolist() == [True, False, False, True]
    assert worst_case(first).tolist() == first.tolist()


def test_verdicts_on_other_examples_have_no_worst_case() -> None:
    with pytest.raises(ValueError, match="same examples"):
        worst_case(torch.ones(3), torch.ones(4))
    with pytest.raises(ValueError, match="at least one"):
        worst_case()


# Attacks in a process of its own, keeps what is done in a file, and is killed in the middle.
KILLED = """
import json, os, signal, sys
from pathlib import Path
from cstar_core.evaluation.attacks.named import attack_correct
from tests.unit.core.evaluation.classifiers import problem

completed = {}

def keep(batch):
    Path(sys.argv[2]).write_text(json.dumps(completed))
    if 2 * batch.done >= batch.total:
        os.kill(os.getpid(), signal.SIGKILL)

model, images, labels, threat, _ = problem("linf", n=2)
attack_correct(model, images, labels, threat, sys.argv[1], seed=3, batch_size=1,
               completed=completed, on_batch=keep)
"""


@pytest.mark.parametrize(("name", "pieces"), [("pgd-50-margin", 1), ("autoattack", 4)])
def test_an_attack_that_is_killed_resumes_to_the_exact_verdicts(
    name: str, pieces: int, tmp_path: Path
) -> None:
    ledger = tmp_path / "completed.json"
    arguments = [sys.executable, "-c", KILLED, name, str(ledger)]
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    killed = subprocess.run(arguments, env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    completed = json.loads(ledger.read_text())
    assert len(completed) == pieces

    model, images, labels, threat, robust = problem("linf", n=2)
    resumed = attack_correct(
        model, images, labels, threat, name, seed=3, batch_size=1, completed=completed
    )
    assert torch.equal(resumed.robust, robust)
