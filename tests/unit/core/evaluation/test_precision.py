from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cstar_core.attacks import ThreatModel
from cstar_core.evaluation.attacks.named import attack_correct
from cstar_core.evaluation.attacks.planted import planted_test
from cstar_core.evaluation.attacks.precision import float32_exact
from cstar_core.evaluation.attacks.robustness import predict
from cstar_core.evaluation.attacks.transfer import transfer_correct
from cstar_core.evaluation.reliability import model_flags

from .classifiers import convolutional, predicted

THREAT = ThreatModel("linf", 0.5)  # where everything falls at once
Evaluate = Callable[[nn.Module, Tensor, Tensor], Any]
EVALUATIONS: dict[str, Evaluate] = {
    "predict": lambda model, images, _: predict(model, images),
    "pgd": lambda *given: attack_correct(*given, THREAT, "pgd-2", seed=0),
    "square": lambda *given: attack_correct(*given, THREAT, "square", seed=0),
    "flags": model_flags,
    "planted": lambda *given: planted_test(*given, THREAT, seed=0, examples=1),
    "transfer": lambda model, *given: transfer_correct(model, model, *given, THREAT, seed=0),
}
evaluations = pytest.mark.parametrize("evaluate", EVALUATIONS.values(), ids=EVALUATIONS)


class Recording(nn.Module):
    """Notes in which precision each forward pass is made."""

    def __init__(self) -> None:
        super().__init__()
        self.network = convolutional()
        self.seen: set[tuple[str, str, torch.dtype]] = set()

    def forward(self, images: Tensor) -> Tensor:
        assert len(images)  # which no symbolic trace gets past: it is itself what is attacked
        logits: Tensor = self.network(images)
        matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv
        self.seen.add((matmul.fp32_precision, conv.fp32_precision, logits.dtype))
        return logits


@evaluations
def test_every_evaluation_runs_in_exact_float32(evaluate: Evaluate) -> None:
    model = Recording()
    images, labels = predicted(convolutional(), n=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        evaluate(model, images, labels)
    assert model.seen == {("ieee", "ieee", torch.float32)}


@evaluations
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_another_precision_is_refused(evaluate: Evaluate, dtype: torch.dtype) -> None:
    images, labels = predicted(convolutional(), n=2)
    with pytest.raises(ValueError, match=r"give model\.float\(\)"):
        evaluate(convolutional().to(dtype), images, labels)


def test_the_settings_are_given_back_also_after_an_error() -> None:
    matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = matmul.fp32_precision, conv.fp32_precision
    matmul.fp32_precision = "tf32"
    try:
        with contextlib.suppress(KeyError), float32_exact():
            assert (matmul.fp32_precision, conv.fp32_precision) == ("ieee", "ieee")
            raise KeyError
        assert (matmul.fp32_precision, conv.fp32_precision) == ("tf32", before[1])
    finally:
        matmul.fp32_precision = before[0]
