"""Float32 and nothing less: what every evaluation runs in, whatever training was run in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

# Typed loosely: torch makes their parts at run time.
_CUDA: Any = torch.backends.cuda
_CUDNN: Any = torch.backends.cudnn
_ONEDNN: Any = torch.backends.mkldnn
# Where torch may compute float32 products by TF32 or bfloat16: GPU and CPU libraries.
_BACKENDS = (_CUDA.matmul, _CUDNN.conv, _CUDNN.rnn, _ONEDNN.matmul, _ONEDNN.conv)

_PRECISE = (torch.float32, torch.float64)


@contextmanager
def float32_exact(*models: nn.Module) -> Iterator[None]:
    """Inside, float32 is computed as float32, by cuDNN's deterministic algorithms alone.

    No autocast, no TF32, nothing chosen by timing it: one seed gives one verdict. All is as before
    at exit.

    Raises ValueError if a model has weights of less than float32: converting it here would
    evaluate another network than the one that was given, so the caller decides.
    """
    for model in models:
        _check_precision(model)
    before = [backend.fp32_precision for backend in _BACKENDS]
    cudnn = torch.backends.cudnn
    chosen = (cudnn.deterministic, cudnn.benchmark)
    with ExitStack() as stack:
        for device in ("cpu", "cuda"):
            stack.enter_context(torch.autocast(device, enabled=False))
        try:
            for backend in _BACKENDS:
                backend.fp32_precision = "ieee"
            cudnn.deterministic, cudnn.benchmark = True, False
            yield
        finally:
            for backend, precision in zip(_BACKENDS, before, strict=True):
                backend.fp32_precision = precision
            cudnn.deterministic, cudnn.benchmark = chosen


def _check_precision(model: nn.Module) -> None:
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and tensor.dtype not in _PRECISE:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ValueError(
                f"{name} is {kind}; robustness is evaluated in float32: give model.float()"
            )
