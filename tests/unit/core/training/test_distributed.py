from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cstar_core.training.distributed import World
from cstar_core.training.execution import Execution
from cstar_core.training.global_batch_norm import GloballyNormalised, twin_on_gpu

from .members import CASES, everything, interrupted, resumed
from .problems import differences, epoch_ends, flat, network

SIZE = 2
ROUNDING = 1e-10  # of float64 sums in another order; the largest difference seen is 2e-15
FLOAT32_ROUNDING = 1e-6  # losses are summed in float32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes have left after training every case together."""
    path = tmp_path_factory.mktemp("together")
    interrupted(path / "alone.pt")
    command = [sys.executable, "-m", "tests.unit.core.training.members", str(path)]
    members = [
        subprocess.Popen([*command, str(index), str(SIZE)], stderr=subprocess.PIPE, text=True)
        for index in range(SIZE)
    ]
    errors = [member.communicate()[1] for member in members]
    assert [member.returncode for member in members] == [0] * SIZE, "\n".join(errors)
    return path


def left(folder: Path, name: str, *, index: int = 0) -> Any:
    return torch.load(folder / f"{name}.{index}.pt", weights_only=True)


def distance(left: object, right: object) -> float:
    """The largest difference of two states, in units of 1 or of the larger value."""
    first, second = flat(left), flat(right)
    assert first.keys() == second.keys()
    pairs = [(_values(value), _values(second[path])) for path, value in first.items()]
    return max(float(((a - b).abs() / b.abs().clamp_min(1)).max()) for a, b in pairs if len(a))


def _values(leaf: object) -> Tensor:
    return torch.as_tensor(0.0 if leaf is None else leaf, dtype=torch.float64).flatten()


@pytest.mark.parametrize("name", CASES)
def test_two_processes_do_what_one_does_with_the_same_batches(folder: Path, name: str) -> None:
    alone = CASES[name]()
    metrics = [end.metrics for end in epoch_ends(alone)]
    together = left(folder, name)

    assert distance(together["metrics"], metrics) < FLOAT32_ROUNDING
    assert distance(together["state"], alone.state_dict()) < ROUNDING


@pytest.mark.parametrize("name", CASES)
def test_every_process_ends_with_the_same_bits(folder: Path, name: str) -> None:
    assert differences(left(folder, name), left(folder, name, index=1)) == []


def test_a_run_of_two_processes_that_is_interrupted_ends_with_the_same_bits(folder: Path) -> None:
    assert differences(left(folder, "resumed"), left(folder, "everything")["state"]) == []


def test_a_run_may_go_on_with_another_number_of_processes(folder: Path) -> None:
    undisturbed = left(folder, "everything")["state"]
    assert distance(left(folder, "taken over"), undisturbed) < ROUNDING
    stopped = torch.load(folder / "stopped.0.pt", weights_only=True)
    assert distance(resumed(everything(), stopped).state_dict(), undisturbed) < ROUNDING


def test_a_report_says_how_many_processes_shared_the_batches(folder: Path) -> None:
    assert left(folder, "notes") == ["2 processes shared every batch"]
    assert everything().effective["notes"] == []


def test_what_is_not_compiled_in_several_processes_is_noted() -> None:
    compiled = Execution(device="cuda", precision="bfloat16", compiled=True)
    assert World().execution(compiled) == compiled
    assert "attacks alone are compiled" in World(0, 2).execution(compiled).notes[-1]


def test_a_globally_normalised_network_is_the_network_itself_out_of_training() -> None:
    model = network()
    names, images = list(model.state_dict()), torch.rand(4, 1, 8, 8)
    shared = GloballyNormalised(model)

    assert torch.equal(shared.eval()(images), model(images))
    assert list(model.state_dict()) == names
    assert [type(module) for module in model] == [type(module) for module in network()]


def test_the_batch_norm_for_gpus_has_the_tensors_of_the_one_it_stands_for() -> None:
    norm = nn.BatchNorm2d(3)
    twin = twin_on_gpu(norm)

    for name, tensor in (*norm.named_parameters(), *norm.named_buffers()):
        assert getattr(twin, name) is tensor
    assert twin.training


def test_one_process_shares_nothing() -> None:
    world = World.current()
    assert (world.index, world.size, world.leads) == (0, 1, True)
    assert world.total(0.1, 3) == (0.1, 3)
    assert world.agreed(True)
    assert world.received({"a": 1}) == {"a": 1}
    assert world.share(5).rows == slice(0, 5)


@pytest.mark.parametrize("count", range(3, 20))
def test_shares_cover_a_batch_and_their_weighted_average_is_that_of_the_examples(
    count: int,
) -> None:
    values = torch.arange(count, dtype=torch.float64).square()
    shares = [World(index, 3).share(count) for index in range(3)]

    assert torch.equal(torch.cat([values[share.rows] for share in shares]), values)
    average = sum(share.weight * values[share.rows].mean() for share in shares) / 3
    assert float(average) == pytest.approx(float(values.mean()))


def test_a_batch_too_small_to_share_is_refused() -> None:
    with pytest.raises(ValueError, match="raise batch_size or use fewer processes"):
        World(0, 4).share(3)
