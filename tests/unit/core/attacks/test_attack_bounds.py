from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cstar_core.attacks import Norm, ThreatModel, fgsm_rs, n_fgsm, pgd, uniform_start

from .networks import convolutional, generator, images, labels

ROUNDING = 1e-6
norms = st.sampled_from(["linf", "l2"])
seeds = st.integers(0, 2**31)


def length(perturbation: Tensor, norm: Norm) -> Tensor:
    order = float("inf") if norm == "linf" else 2
    lengths: Tensor = torch.linalg.vector_norm(perturbation.flatten(1), ord=order, dim=1)
    return lengths


def in_unit_box(tensor: Tensor) -> bool:
    return bool(((tensor >= 0) & (tensor <= 1)).all())


@settings(deadline=None, max_examples=40)
@given(
    norm=norms,
    epsilon=st.floats(0, 1),
    steps=st.integers(0, 4),
    step_size=st.floats(0, 3),
    random_start=st.booleans(),
    loss=st.sampled_from(["ce", "margin"]),
    seed=seeds,
)
def test_pgd_stays_in_the_ball_and_in_the_unit_box(
    *,
    norm: Norm,
    epsilon: float,
    steps: int,
    step_size: float,
    random_start: bool,
    loss: Any,
    seed: int,
) -> None:
    x = images(3, seed)
    adversarial = pgd(
        convolutional(seed),
        x,
        labels(3, seed),
        ThreatModel(norm, epsilon),
        steps=steps,
        step_size=step_size,
        random_start=random_start,
        generator=generator(seed),
        loss=loss,
    )
    assert length(adversarial - x, norm).max() <= epsilon + ROUNDING
    assert in_unit_box(adversarial)


@settings(deadline=None, max_examples=20)
@given(norm=norms, epsilon=st.floats(0, 1), seed=seeds)
def test_fgsm_rs_stays_in_the_ball_and_in_the_unit_box(
    norm: Norm, epsilon: float, seed: int
) -> None:
    x = images(3, seed)
    threat = ThreatModel(norm, epsilon)
    adversarial = fgsm_rs(
        convolutional(seed), x, labels(3, seed), threat, generator=generator(seed)
    )
    assert length(adversarial - x, norm).max() <= epsilon + ROUNDING
    assert in_unit_box(adversarial)


@settings(deadline=None, max_examples=20)
@given(norm=norms, epsilon=st.floats(0, 1), seed=seeds)
def test_n_fgsm_stays_within_three_epsilon_and_in_the_unit_box(
    norm: Norm, epsilon: float, seed: int
) -> None:
    x = images(3, seed)
    threat = ThreatModel(norm, epsilon)
    adversarial = n_fgsm(convolutional(seed), x, labels(3, seed), threat, generator=generator(seed))
    assert length(adversarial - x, norm).max() <= 3 * epsilon + ROUNDING
    assert in_unit_box(adversarial)


def test_n_fgsm_is_not_clipped_to_the_ball() -> None:
    x = torch.full((8, 1, 4, 4), 0.5)
    adversarial = n_fgsm(
        convolutional(), x, labels(8), ThreatModel("linf", 0.05), generator=generator()
    )
    assert (adversarial - x).abs().max() > 0.1


@settings(deadline=None, max_examples=20)
@given(radius=st.floats(0.01, 0.5), seed=seeds)
def test_a_uniform_l2_start_lies_in_the_ball_but_not_at_its_centre(
    radius: float, seed: int
) -> None:
    x = torch.full((64, 1, 4, 4), 0.5)
    start = uniform_start(x, norm="l2", radius=radius, generator=generator(seed))
    distances = length(start - x, "l2")
    assert distances.max() <= radius + ROUNDING
    # In 16 dimensions half the volume lies beyond 0.958 of the radius.
    assert 0.9 * radius < distances.median() < radius


def test_an_epsilon_of_zero_returns_the_images() -> None:
    x = images(4)
    adversarial = pgd(
        convolutional(),
        x,
        labels(4),
        ThreatModel("linf", 0.0),
        steps=3,
        step_size=0.1,
        random_start=True,
        generator=generator(),
    )
    assert torch.equal(adversarial, x)


@pytest.mark.parametrize(
    ("norm", "epsilon", "message"),
    [
        ("l1", 0.1, "unknown norm"),
        ("linf", -0.1, "not negative"),
        ("linf", float("nan"), "finite"),
        ("l2", float("inf"), "finite"),
        ("linf", 8.0, "divide by 255"),
    ],
)
def test_a_threat_model_refuses_what_is_no_distance(
    norm: Any, epsilon: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ThreatModel(norm, epsilon)


def test_a_threat_model_states_itself_as_json() -> None:
    assert ThreatModel("l2", 0.5).to_json() == {"norm": "l2", "epsilon": 0.5}
