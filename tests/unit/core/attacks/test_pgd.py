from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cstar_core.attacks import (
    AttackLoss,
    ThreatModel,
    attack_mode,
    fgsm_rs,
    input_gradient,
    margin,
    pgd,
)

from .networks import PIXELS, convolutional, generator, images, labels, linear

GREY = 0.5
# |w_1 - w_0|_1 = 16 * 0.2 and |w_1 - w_0|_2 = 4 * 0.2 for these two classes.
OPPOSED = torch.stack([torch.full((PIXELS,), 0.1), torch.full((PIXELS,), -0.1)])


def two_class_model(robust_radius: float, dual_norm: float) -> nn.Module:
    """A linear model that holds a grey image to class 0 up to exactly `robust_radius`."""
    return linear(OPPOSED, torch.tensor([robust_radius * dual_norm, 0.0]))


def attack(model: nn.Module, x: Tensor, threat: ThreatModel, *, loss: AttackLoss = "ce") -> Tensor:
    y = torch.zeros(len(x), dtype=torch.int64)
    return pgd(
        model,
        x,
        y,
        threat,
        steps=10,
        step_size=threat.epsilon / 4,
        random_start=False,
        generator=generator(),
        loss=loss,
    )


@pytest.mark.parametrize(("norm", "dual_norm"), [("linf", 3.2), ("l2", 0.8)])
@pytest.mark.parametrize(("epsilon", "found"), [(0.11, True), (0.09, False)])
def test_a_planted_adversarial_example_is_found_exactly_within_its_radius(
    norm: str, dual_norm: float, epsilon: float, found: bool
) -> None:
    # Grey images give both classes -+0.8; the bias must outweigh that by the robust radius.
    model = linear(OPPOSED, torch.tensor([0.1 * dual_norm - 1.6, 0.0]))
    x = torch.full((1, 1, 4, 4), GREY)
    assert model(x).argmax() == 0
    adversarial = attack(model, x, ThreatModel(norm, epsilon))  # type: ignore[arg-type]
    assert bool(model(adversarial).argmax() == 1) == found


def test_pgd_on_a_linear_model_reaches_the_worst_corner_of_the_ball() -> None:
    model = two_class_model(0.3, 3.2)
    x = torch.full((1, 1, 4, 4), GREY)
    adversarial = attack(model, x, ThreatModel("linf", 0.1))
    assert torch.allclose(adversarial, torch.full_like(x, 0.4))


@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_both_losses_lead_to_the_same_corner_of_a_two_class_linear_model(loss: AttackLoss) -> None:
    model = two_class_model(0.3, 3.2)
    x = torch.full((1, 1, 4, 4), GREY)
    adversarial = attack(model, x, ThreatModel("linf", 0.1), loss=loss)
    assert torch.allclose(adversarial, torch.full_like(x, 0.4))


def test_the_margin_loss_succeeds_where_cross_entropy_has_no_gradient() -> None:
    model = linear(1000 * OPPOSED, torch.tensor([1000 * (0.05 * 3.2 - 1.6), 0.0]))
    x = torch.full((1, 1, 4, 4), GREY)
    threat = ThreatModel("linf", 0.1)
    assert model(attack(model, x, threat, loss="ce")).argmax() == 0
    assert model(attack(model, x, threat, loss="margin")).argmax() == 1


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31))
def test_the_margin_is_positive_exactly_when_the_label_is_not_predicted(seed: int) -> None:
    logits = torch.randn(20, 5, generator=generator(seed))
    y = labels(20, seed, classes=5)
    assert torch.equal(margin(logits, y) > 0, logits.argmax(1) != y)


def test_the_loss_rises_from_the_clean_image_to_the_adversarial_one() -> None:
    model, x, y = convolutional().eval(), images(16), labels(16)
    adversarial = pgd(
        model,
        x,
        y,
        ThreatModel("linf", 0.1),
        steps=10,
        step_size=0.02,
        random_start=False,
        generator=generator(),
    )
    clean, attacked = (nn.functional.cross_entropy(model(inputs), y) for inputs in (x, adversarial))
    assert attacked > clean + 0.1


def test_fgsm_rs_is_pgd_with_one_step_of_five_quarters_of_epsilon() -> None:
    model, x, y, threat = convolutional(), images(4), labels(4), ThreatModel("linf", 0.1)
    one_step = pgd(
        model, x, y, threat, steps=1, step_size=0.125, random_start=True, generator=generator(3)
    )
    assert torch.equal(fgsm_rs(model, x, y, threat, generator=generator(3)), one_step)


def test_more_restarts_never_give_a_smaller_margin() -> None:
    model, x, y = convolutional().eval(), images(16), labels(16)

    def worst_margin(restarts: int) -> Tensor:
        adversarial = pgd(
            model,
            x,
            y,
            ThreatModel("linf", 0.1),
            steps=2,
            step_size=0.05,
            random_start=True,
            generator=generator(1),
            restarts=restarts,
        )
        return margin(model(adversarial), y)

    one, five = worst_margin(1), worst_margin(5)
    assert (five >= one - 1e-5).all()
    assert (five > one + 1e-5).any()


def test_equal_generators_give_equal_attacks_and_leave_the_global_one_alone() -> None:
    model, x, y, threat = convolutional(), images(4), labels(4), ThreatModel("l2", 0.5)
    before = torch.random.get_rng_state()
    first, second = (fgsm_rs(model, x, y, threat, generator=generator(5)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_attack_works_where_gradients_are_switched_off() -> None:
    model, x, y, threat = convolutional(), images(4), labels(4), ThreatModel("linf", 0.1)
    with torch.no_grad():
        adversarial = fgsm_rs(model, x, y, threat, generator=generator())
    assert not torch.equal(adversarial, x)


@pytest.mark.parametrize(
    "wrong", [{"steps": -1}, {"step_size": -0.1}, {"restarts": 0}, {"restarts": 2}]
)
def test_contradictory_settings_are_refused(wrong: dict[str, int]) -> None:
    settings_ = {"steps": 1, "step_size": 0.1, "random_start": False} | wrong
    with pytest.raises(ValueError, match="restarts"):
        pgd(
            convolutional(),
            images(1),
            labels(1),
            ThreatModel("linf", 0.1),
            generator=generator(),
            **settings_,  # type: ignore[arg-type]
        )


def test_attack_mode_puts_batch_norm_in_eval_mode_and_freezes_parameters() -> None:
    model = convolutional().train()
    with attack_mode(model):
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())


def test_attack_mode_restores_mixed_modes_and_partly_frozen_parameters() -> None:
    model = convolutional().train()
    model[1].eval()  # type: ignore[index]
    model[0].weight.requires_grad_(False)  # type: ignore[index]
    modes = [module.training for module in model.modules()]
    trainable = [parameter.requires_grad for parameter in model.parameters()]
    with pytest.raises(RuntimeError, match="planted"), attack_mode(model):
        raise RuntimeError("planted")
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == trainable


def test_an_attack_leaves_no_gradients_and_no_new_statistics_in_the_model() -> None:
    model = convolutional().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fgsm_rs(model, images(4), labels(4), ThreatModel("linf", 0.1), generator=generator())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_input_gradient_of_a_linear_model_is_the_difference_of_its_rows() -> None:
    _, gradient = input_gradient(linear(OPPOSED), images(2), torch.tensor([0, 1]), loss="margin")
    assert torch.allclose(gradient[0], torch.full((1, 4, 4), -0.2))
    assert torch.allclose(gradient[1], torch.full((1, 4, 4), 0.2))
