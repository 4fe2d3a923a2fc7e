"""Data-parallel training: several processes train one network as a single one would.

Each process attacks and differentiates its rows of every batch; DistributedDataParallel averages
the gradients, batch norm takes its statistics over all rows, and whatever is random is drawn for
the whole batch and then cut. The result is that of one process with the same batches, up to
rounding.

A process's number is called `index` here: a rank is something else in this library.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.overrides import TorchFunctionMode

from cstar_core.training.execution import Execution
from cstar_core.training.global_batch_norm import GloballyNormalised
from cstar_core.training.objectives import AttackedBatch, Loss

T = TypeVar("T")
TIMEOUT = timedelta(minutes=30)  # longer than the leader scores an epoch while the others wait


@dataclass(frozen=True)
class World:
    """The processes that train together; the one with index 0 leads: it decides and it saves."""

    index: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> World:
        """The processes of torch's default group; without one, this process alone."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def leads(self) -> bool:
        """Whether this process decides."""
        return self.index == 0

    def share(self, count: int) -> Share:
        """This process's part of a batch of `count` examples; ValueError if not all get one."""
        if count < self.size:
            raise ValueError(
                f"{self.size} processes cannot share a batch of {count}; raise batch_size or use "
                "fewer processes"
            )
        first, last = (index * count // self.size for index in (self.index, self.index + 1))
        return Share(first, last, count, self.size)

    def total(self, *values: float) -> tuple[float, ...]:
        """The sum of each value over all processes, in float64."""
        if self.size == 1:
            return values
        sums = torch.tensor(values, dtype=torch.float64, device=_device())
        dist.all_reduce(sums)
        return tuple(sums.tolist())

    def agreed(self, decision: bool) -> bool:
        """The leader's decision, for every process alike."""
        if self.size == 1:
            return decision
        said = torch.tensor([decision], dtype=torch.uint8, device=_device())
        dist.broadcast(said, src=0)
        return bool(said.item())

    def received(self, value: T) -> T:
        """The leader's value (tensors and plain data), with its tensors on the CPU."""
        if self.size == 1:
            return value
        content = _packed(value) if self.leads else torch.empty(0, dtype=torch.uint8)
        length = torch.tensor([len(content)], device=_device())
        dist.broadcast(length, src=0)
        if not self.leads:
            content = content.new_empty(int(length.item()))
        data = content.to(_device())
        dist.broadcast(data, src=0)
        return value if self.leads else _unpacked(data)

    def execution(self, alone: Execution) -> Execution:
        """What would run `alone`, with notes on what several processes change."""
        if self.size == 1:
            return alone
        notes = [f"{self.size} processes shared every batch"]
        if alone.compiled:
            notes.append("attacks alone are compiled, as the training pass is shared")
        return replace(alone, notes=(*alone.notes, *notes))

    def objective(self, loss: Loss, model: nn.Module, share: Share) -> Loss:
        """`loss` over the whole batch: each process evaluates its share, gradients are averaged."""
        if self.size == 1:
            return loss
        network = GloballyNormalised(model)
        # Buffers need no broadcast: every process computes the same statistics.
        return _SharedLoss(
            loss, DistributedDataParallel(network, forward_sync_buffers=False), share.weight
        )


@dataclass(frozen=True)
class Share:
    """The examples `first` to `last` (excluded) of `count`, for one of `size` processes."""

    first: int
    last: int
    count: int
    size: int

    @property
    def rows(self) -> slice:
        """Where they are in the batch."""
        return slice(self.first, self.last)

    @property
    def weight(self) -> float:
        """What makes the mean over processes one over examples: 1 if all shares are equal."""
        return self.size * (self.last - self.first) / self.count

    def draws(self) -> AbstractContextManager[Any]:
        """Inside, random numbers for the rows are cut from those that one process would draw."""
        return nullcontext() if self.size == 1 else _WholeBatchDraws(self)


@contextmanager
def joined(meeting: Path, *, index: int, size: int, device: torch.device) -> Iterator[World]:
    """Join `size` processes of this machine that all name the same `meeting`, a file to be made.

    NCCL where `device` is a GPU, one for each process, Gloo on the CPU.
    """
    on_gpu = device.type == "cuda"
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(variable, "lo")  # a sandbox has no other network
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        init_method=meeting.resolve().as_uri(),
        rank=index,
        world_size=size,
        timeout=TIMEOUT,
        device_id=device if on_gpu else None,
    )
    try:
        dist.barrier()  # one that left at once would cut off those that are still connecting
        yield World.current()
    finally:
        dist.destroy_process_group()


@dataclass(frozen=True)
class _SharedLoss:
    """A loss whose gradients are averaged over processes, each weighted by its rows."""

    loss: Loss
    network: DistributedDataParallel
    weight: float

    def __call__(self, _: nn.Module, batch: AttackedBatch) -> tuple[Tensor, Tensor]:
        loss, logits = self.loss(self.network, batch)
        return loss * self.weight, logits


class _WholeBatchDraws(TorchFunctionMode):
    """Draws for the whole batch instead of its rows (rand, randn, dropout), and cuts the rows."""

    def __init__(self, share: Share) -> None:
        super().__init__()
        self._share = share

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (torch.rand, torch.randn):
            _, *rest = args[0] if isinstance(args[0], tuple) else args
            return func((self._share.count, *rest), **kwargs)[self._share.rows]
        if func is F.dropout and kwargs["training"]:
            (x,) = args
            mask = F.dropout(x.new_ones(self._share.count, *x.shape[1:]), kwargs["p"])
            return x * mask[self._share.rows]
        return func(*args, **kwargs)


def _device() -> torch.device:
    """Where the group communicates."""
    on_gpu = dist.get_backend() == dist.Backend.NCCL
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")


def _packed(value: object) -> Tensor:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return torch.frombuffer(buffer.getbuffer(), dtype=torch.uint8)


def _unpacked(data: Tensor) -> Any:
    buffer = io.BytesIO(data.cpu().numpy().tobytes())
    return torch.load(buffer, map_location="cpu", weights_only=True)
