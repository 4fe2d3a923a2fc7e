from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cstar_core.attacks import ThreatModel, fgsm_rs, n_fgsm, pgd
from cstar_core.criteria import criterion, divergence

from .networks import convolutional, generator, images, labels

THREAT = ThreatModel("linf", 0.1)


def crafted_by_pgd(loss: str, *, seed: int = 1) -> Tensor:
    return pgd(
        convolutional(),
        images(16),
        labels(16),
        THREAT,
        steps=10,
        step_size=0.02,
        random_start=True,
        generator=generator(seed),
        loss=loss,  # type: ignore[arg-type]
    )


def distance(adversarial: Tensor) -> float:
    """KL(f(x) | f(x')), summed."""
    model = convolutional().eval()
    with torch.no_grad():
        return float(divergence(model(images(16)), model(adversarial)).sum())


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), scale=st.floats(0.1, 20))
def test_the_divergence_is_the_sum_of_its_definition(seed: int, scale: float) -> None:
    first, second = scale * torch.randn(2, 6, 5, generator=generator(seed))
    p, q = first.double().softmax(1), second.double().softmax(1)
    expected = (p * (p.log() - q.log())).sum(1)
    assert torch.allclose(divergence(first, second).double(), expected, atol=1e-4, rtol=1e-4)


def test_the_divergence_of_a_distribution_from_itself_is_zero() -> None:
    logits = torch.randn(4, 3, generator=generator())
    assert torch.allclose(divergence(logits, logits + 2.0), torch.zeros(4), atol=1e-6)


def test_attacking_the_divergence_moves_the_answer_further_than_attacking_cross_entropy() -> None:
    by_divergence = crafted_by_pgd("kl")
    assert distance(by_divergence) > distance(crafted_by_pgd("ce"))
    assert float((by_divergence - images(16)).abs().max()) <= 0.1 + 1e-6


def test_attacking_the_divergence_asks_for_no_labels() -> None:
    model, x, none = convolutional(), images(4), torch.empty(0, dtype=torch.int64)
    adversarial = fgsm_rs(model, x, none, THREAT, generator=generator(), loss="kl")
    assert adversarial.shape == x.shape


@pytest.mark.parametrize("attack", [fgsm_rs, n_fgsm])
def test_a_single_step_on_the_divergence_follows_its_gradient(attack: object) -> None:
    assert callable(attack)
    model, x, y = convolutional(), images(16), labels(16)
    with_divergence = attack(model, x, y, THREAT, generator=generator(2), loss="kl")
    with_labels = attack(model, x, y, THREAT, generator=generator(2))
    assert distance(with_divergence) > distance(with_labels)


def test_the_reference_is_the_answer_at_the_clean_images_without_a_gradient() -> None:
    model, x = convolutional().eval(), images(3)
    raised = criterion("kl", model, x, labels(3))
    logits = model(x + 0.1)
    raised(logits).backward()  # type: ignore[no-untyped-call]
    alone = divergence(model(x).detach(), logits.detach())
    assert torch.isclose(raised(logits.detach()), alone.sum())
