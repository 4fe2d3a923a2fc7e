from __future__ import annotations

import importlib.util
import json
import shutil
from typing import get_args

import pytest
import torch

from cstar_core.attacks import attack_mode
from cstar_core.training.config import AwpConfig, Precision
from cstar_core.training.descent import Descent
from cstar_core.training.execution import Execution
from cstar_core.training.objectives import CrossEntropy

from .problems import config, differences, finish, network, trainer
from .test_objectives import batch

WISHES = config(precision="bfloat16", compile=True)
GPU = torch.device("cuda")


@pytest.fixture
def capable_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that a GPU run asks of its machine, whatever this one has."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(shutil, "which", lambda name: name)


def test_on_a_cpu_both_wishes_fall_back_and_the_notes_say_so() -> None:
    run = trainer(config(epochs=1, precision="bfloat16", compile=True))
    effective = json.loads(json.dumps(run.effective))
    assert effective["device"] == "cpu"
    assert effective["precision"] == "float32"
    assert effective["compiled"] is False
    assert [note.split()[0] for note in effective["notes"]] == ["bfloat16", "compilation"]


def test_a_fallen_back_run_is_the_float32_run_bit_for_bit() -> None:
    wished = trainer(config(epochs=1, precision="bfloat16", compile=True))
    plain = trainer(config(epochs=1))
    finish(wished)
    finish(plain)
    assert differences(wished.state_dict(), plain.state_dict()) == []


def test_what_was_not_asked_for_needs_no_note() -> None:
    assert trainer().effective == {
        "device": "cpu",
        "precision": "float32",
        "compiled": False,
        "notes": [],
    }


@pytest.mark.usefixtures("capable_gpu")
def test_a_capable_gpu_grants_both() -> None:
    granted = Execution.of(WISHES, GPU)
    assert (granted.precision, granted.compiled, granted.notes) == ("bfloat16", True, ())


@pytest.mark.usefixtures("capable_gpu")
@pytest.mark.parametrize(
    ("owner", "name", "note"),
    [
        (torch.cuda, "is_bf16_supported", "no units"),
        (importlib.util, "find_spec", "Triton, which is not installed"),
        (shutil, "which", "C compiler"),
    ],
)
def test_each_thing_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, note: str
) -> None:
    monkeypatch.setattr(owner, name, lambda *_, **__: None)
    execution = Execution.of(WISHES, GPU)
    assert len(execution.notes) == 1
    assert note in execution.notes[0]
    assert (execution.precision == "float32") != (execution.compiled is False)


def test_a_compiled_network_shares_weights_and_modes_with_the_network() -> None:
    model = network().train()
    compiled = Execution(device="cpu", precision="float32", compiled=True).compiled_network(model)
    assert compiled is not model
    assert [id(p) for p in compiled.parameters()] == [id(p) for p in model.parameters()]
    with attack_mode(compiled):
        assert not any(module.training for module in model.modules())
    assert all(module.training for module in model.modules())


def test_weights_that_are_perturbed_in_a_bfloat16_step_are_seen_by_the_loss() -> None:
    """Autocast keeps its casts of the weights while it is open, and so would miss the move."""
    awp = AwpConfig(gamma=0.5, warmup_share=0.0)
    logits = []
    for perturbed in (False, True):
        descent = Descent(
            network(),
            config(awp=awp),
            objective=CrossEntropy(),
            execution=Execution(device="cpu", precision="bfloat16", compiled=False),
            constraint=None,
        )
        logits.append(descent.gradients(batch(), perturbed=perturbed)[1])
    assert not torch.allclose(*logits, atol=0.05)


def test_a_step_in_bfloat16_keeps_float32_weights_and_is_near_the_float32_step() -> None:
    weights = {}
    for precision in get_args(Precision):
        model = network()
        descent = Descent(
            model,
            config(),
            objective=CrossEntropy(),
            execution=Execution(device="cpu", precision=precision, compiled=False),
            constraint=None,
        )
        descent.gradients(batch(), perturbed=False)
        descent.step(0.05)
        weights[precision] = torch.cat([p.detach().flatten() for p in model.parameters()])
    start = torch.cat([p.detach().flatten() for p in network().parameters()])
    moved = {precision: weight - start for precision, weight in weights.items()}
    assert weights["bfloat16"].dtype == torch.float32
    error = (moved["bfloat16"] - moved["float32"]).norm()
    assert 0 < error < 0.1 * moved["float32"].norm()
