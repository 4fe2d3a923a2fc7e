from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cstar_core.projection import Ranks, project
from cstar_core.training.admm import Admm, AdmmConfig, Projection, initial_rho
from cstar_core.training.loop import AdversarialTrainer

from .problems import config, differences, epoch_ends, finish, network, trainer


def rank_one(weight: Tensor) -> Tensor:
    u, s, v = torch.linalg.svd(weight.flatten(1), full_matrices=False)
    nearest: Tensor = (s[0] * torch.outer(u[:, 0], v[0])).view_as(weight)
    return nearest


def zero(weight: Tensor) -> Tensor:
    return torch.zeros_like(weight)


def parameter(*shape: int, seed: int = 0) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(seed)))


def admm(weight: nn.Parameter, **changes: float) -> Admm:
    rho = changes.pop("rho", 1.0)
    settings_ = AdmmConfig(**{"epochs": 10} | changes)  # type: ignore[arg-type]
    return Admm({"w": weight}, {"w": rank_one}, rho=rho, config=settings_)


def minimise(constraint: Admm, weight: nn.Parameter, goal: Tensor, *, epochs: int) -> None:
    """ADMM on 1/2 |W - goal|^2 by many small gradient steps per epoch."""
    for epoch in range(epochs):
        for _ in range(200):
            weight.grad = None
            loss = 0.5 * (weight - goal).square().sum() + constraint.penalty()
            loss.backward()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                assert weight.grad is not None
                weight -= 0.05 * weight.grad
        constraint.epoch_end(epoch, learning_rate=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_a_quadratic_loss_converges_to_the_projection_of_its_minimum(seed: int) -> None:
    goal = parameter(6, 5, seed=seed).detach()
    weight = parameter(6, 5, seed=seed + 10)
    constraint = admm(weight, epochs=30, growth=1.0, balance=1.0)
    minimise(constraint, weight, goal, epochs=30)
    assert constraint.gap < 1e-3
    assert torch.allclose(weight, rank_one(goal), atol=5e-3)


def test_the_penalty_and_its_gradient_are_those_of_the_formula() -> None:
    weight = parameter(4, 3)
    constraint = admm(weight, rho=0.7)
    constraint.dual["w"] = torch.full((4, 3), 0.2)
    penalty = constraint.penalty()
    penalty.backward()  # type: ignore[no-untyped-call]
    offset = weight.detach() - rank_one(weight.detach()) + 0.2
    assert penalty.item() == pytest.approx(0.35 * offset.square().sum().item(), rel=1e-5)
    assert weight.grad is not None
    assert torch.allclose(weight.grad, 0.7 * offset, atol=1e-6)


def test_the_penalty_is_float32_for_half_precision_weights() -> None:
    weight = nn.Parameter(parameter(4, 3).detach().bfloat16())
    constraint = Admm({"w": weight}, {"w": zero}, rho=1.0, config=AdmmConfig(epochs=1))
    assert constraint.penalty().dtype == torch.float32


def test_an_update_is_that_of_scaled_admm() -> None:
    weight = parameter(4, 3)
    constraint = admm(weight, growth=1.0, balance=1.0, max_step=1e9)
    constraint.dual["w"] = dual = parameter(4, 3, seed=1).detach()
    lifted = weight.detach() + dual
    constraint.epoch_end(0, learning_rate=0.1)
    assert torch.allclose(constraint.target["w"], rank_one(lifted))
    assert torch.allclose(constraint.dual["w"], lifted - rank_one(lifted))


def test_the_unscaled_dual_is_continuous_when_rho_changes() -> None:
    weight = parameter(4, 3)
    before = admm(weight, growth=1.0, balance=1.0, max_step=1e9)
    after = admm(weight, growth=100.0, balance=1.0, max_step=1e9)
    for constraint in (before, after):
        constraint.epoch_end(0, learning_rate=0.1)
    assert after.rho > 1.5 * before.rho
    assert torch.allclose(after.rho * after.dual["w"], before.rho * before.dual["w"])


def test_rho_grows_about_as_much_as_configured_over_the_run() -> None:
    constraint = admm(parameter(4, 3), epochs=5, growth=10.0, balance=1.0, max_step=1e9)
    rhos = [constraint.epoch_end(epoch, learning_rate=0.1)["admm_rho"] for epoch in range(5)]
    assert rhos[3] == pytest.approx(10.0)


def test_rho_grows_faster_while_the_primal_residual_dominates() -> None:
    # W is not moved, so Z soon stands still and the dual residual vanishes.
    plain = admm(parameter(4, 3), balance=1.0)
    balanced = admm(parameter(4, 3), balance=2.0)
    for epoch in range(3):
        for constraint in (plain, balanced):
            constraint.epoch_end(epoch, learning_rate=1e-6)
    assert balanced.rho > 1.9 * plain.rho


def test_rho_falls_when_the_dual_residual_dominates() -> None:
    weight = parameter(4, 3)
    constraint = admm(weight, growth=1.0, rho=50.0, max_step=1e9)
    with torch.no_grad():
        weight.copy_(rank_one(-3 * weight))
    constraint.epoch_end(0, learning_rate=1e-6)
    assert constraint.rho == 25.0


@settings(deadline=None, max_examples=20)
@given(learning_rate=st.floats(1e-4, 1.0), growth=st.floats(1, 1000))
def test_rho_times_the_learning_rate_stays_below_its_cap(
    learning_rate: float, growth: float
) -> None:
    constraint = admm(parameter(4, 3), epochs=3, growth=growth)
    for epoch in range(3):
        constraint.epoch_end(epoch, learning_rate=learning_rate)
        assert constraint.rho * learning_rate <= 0.1 + 1e-9


def test_the_initial_rho_follows_from_the_learning_rate() -> None:
    rho = initial_rho(learning_rate=0.01, momentum=0.9, steps_per_epoch=40)
    assert rho == pytest.approx(0.1)


def test_ranks_are_selected_anew_in_the_first_half_of_the_run_only() -> None:
    weight, seen = parameter(4, 3), []

    def select(weights: object, epoch: int) -> dict[str, object]:
        seen.append(epoch)
        return {"w": zero}

    constraint = Admm(
        {"w": weight},
        {"w": rank_one},
        rho=1.0,
        config=AdmmConfig(epochs=6),
        select=select,  # type: ignore[arg-type]
    )
    for epoch in range(6):
        constraint.epoch_end(epoch, learning_rate=0.1)
    assert seen == [1, 2, 3]  # the epochs about to start
    assert not constraint.target["w"].any()


def test_a_layer_without_a_projection_is_left_free() -> None:
    weight = parameter(4, 3)
    constraint = Admm({"w": weight}, {}, rho=1.0, config=AdmmConfig(epochs=2))
    constraint.epoch_end(0, learning_rate=0.1)
    assert constraint.gap == 0
    assert constraint.penalty() == 0


def test_a_layer_that_becomes_free_is_no_longer_pulled_and_counts_in_no_gap() -> None:
    weight, other = parameter(4, 3), parameter(5, 2, seed=1)
    constraint = Admm(
        {"w": weight, "v": other},
        {"w": rank_one, "v": rank_one},
        rho=1.0,
        config=AdmmConfig(epochs=2, reselect_until=1.0),
        select=lambda *_: {"v": rank_one},
    )
    constraint.epoch_end(0, learning_rate=0.1)
    with torch.no_grad():
        weight.add_(1.0)
    constraint.penalty().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert not weight.grad.any()
    assert list(constraint.residuals) == ["v"]
    assert constraint.gap == constraint.residuals["v"]


# The ramp --------------------------------------------------------------------------------------


@given(
    epochs=st.integers(1, 200),
    reselect_until=st.floats(0, 1),
    share=st.floats(0, 1),
)
def test_the_ramp_tightens_every_epoch_and_ends_while_ranks_are_still_selected(
    epochs: int, reselect_until: float, share: float
) -> None:
    settings_ = AdmmConfig(
        epochs=epochs, reselect_until=reselect_until, ramp=share * reselect_until
    )
    steps = [settings_.tightness(epoch) for epoch in range(epochs)]
    assert all(0 < step <= 1 for step in steps)
    assert all(a < b or a == b == 1 for a, b in pairwise(steps))
    reached = steps.index(1.0)  # the target holds from this epoch on
    assert reached <= settings_.ramp * epochs
    assert reached == 0 or reached <= reselect_until * epochs  # `select` is asked at its start


def test_without_a_ramp_the_target_holds_from_the_start() -> None:
    assert AdmmConfig(epochs=10).tightness(0) == 1


def test_a_ramp_of_three_epochs_takes_three_steps() -> None:
    settings_ = AdmmConfig(epochs=10, ramp=0.3)
    steps = [settings_.tightness(epoch) for epoch in range(4)]
    assert steps == pytest.approx([1 / 3, 2 / 3, 1, 1])


def test_a_ramp_longer_than_the_selection_of_ranks_is_refused() -> None:
    with pytest.raises(ValueError, match="ramp"):
        AdmmConfig(epochs=10, reselect_until=0.2, ramp=0.3)


def ramped(model: nn.Module, ranks: list[int]) -> Admm:
    """ADMM whose rank falls to 1 on the ramp; `ranks` holds the one in force."""
    layer = model[3]  # type: ignore[index]
    assert isinstance(layer, nn.Conv2d)
    settings_ = AdmmConfig(epochs=3, reselect_until=0.6, ramp=0.6)

    def projections(epoch: int) -> dict[str, Projection]:
        ranks[:] = [round(4 ** (1 - settings_.tightness(epoch)))]
        return {"3": partial(project, ranks=Ranks(ranks[0], ranks[0]))}

    return Admm(
        {"3": layer.weight},
        projections(0) if not ranks else {"3": partial(project, ranks=Ranks(ranks[0], ranks[0]))},
        rho=0.5,
        config=settings_,
        select=lambda _, epoch: projections(epoch),
    )


def ramped_run(ranks: list[int]) -> AdversarialTrainer:
    model = network()
    return trainer(config(epochs=3), model=model, constraint=ramped(model, ranks))


def test_a_ramped_run_interrupted_anywhere_ends_with_the_same_bits(tmp_path: Path) -> None:
    final: list[int] = []
    undisturbed = ramped_run(final)
    assert final == [2]
    events = len(finish(undisturbed))
    assert final == [1]
    for interrupted_after in range(1, events, 3):  # within and between epochs
        ranks: list[int] = []
        first = ramped_run(ranks)
        running = first.run()
        for _ in range(interrupted_after):
            next(running)
        torch.save((first.state_dict(), ranks), tmp_path / "checkpoint.pt")
        state, ranks = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
        second = ramped_run(ranks)
        second.load_state_dict(state)
        finish(second)
        assert differences(second.state_dict(), undisturbed.state_dict()) == []


# What is noticed and refused -------------------------------------------------------------------


def test_a_dual_that_runs_away_is_flagged_as_diverging() -> None:
    weight = parameter(4, 3)
    constraint = admm(weight, growth=1.0, balance=1.0)
    flags = [constraint.epoch_end(epoch, learning_rate=0.1)["admm_diverging"] for epoch in range(9)]
    assert flags[0] == 0
    assert flags[-1] == 1
    assert constraint.diverging


def test_a_gap_that_is_not_a_number_is_flagged_as_diverging() -> None:
    weight = parameter(4, 3)
    constraint = Admm({"w": weight}, {"w": zero}, rho=1.0, config=AdmmConfig(epochs=2))
    with torch.no_grad():
        weight.fill_(float("nan"))
    assert constraint.epoch_end(0, learning_rate=0.1)["admm_diverging"] == 1


def test_absurd_rho_in_training_is_flagged_or_refused() -> None:
    model = network()
    layer = model[3]
    assert isinstance(layer, nn.Conv2d)
    constraint = Admm(
        {"3": layer.weight},
        {"3": rank_one},
        rho=1e-9,
        config=AdmmConfig(epochs=8, growth=1.0, balance=1.0),
    )
    ends = epoch_ends(trainer(config(epochs=8), model=model, constraint=constraint))
    assert ends[-1].metrics["admm_diverging"] == 1


def test_training_with_admm_brings_the_weights_to_the_low_rank_set() -> None:
    model = network()
    layer = model[3]
    assert isinstance(layer, nn.Conv2d)
    rho = initial_rho(learning_rate=0.05, momentum=0.9, steps_per_epoch=12)
    constraint = Admm({"3": layer.weight}, {"3": rank_one}, rho=rho, config=AdmmConfig(epochs=10))
    start = constraint.gap
    settings_ = config(epochs=10, batch_size=4)
    ends = epoch_ends(trainer(settings_, model=model, constraint=constraint))
    assert start > 0.5
    assert ends[-1].metrics["admm_gap"] < 0.1
    assert ends[-1].metrics["train_robust_accuracy"] > 0.9


def test_clipping_the_gradient_does_not_slow_the_pull_to_the_low_rank_set() -> None:
    def gap(clip: float | None) -> float:
        model = network()
        layer = model[3]
        assert isinstance(layer, nn.Conv2d)
        constraint = Admm(
            {"3": layer.weight}, {"3": rank_one}, rho=1.0, config=AdmmConfig(epochs=3)
        )
        settings_ = config(epochs=3, gradient_clip=clip)
        return epoch_ends(trainer(settings_, model=model, constraint=constraint))[-1].metrics[
            "admm_gap"
        ]

    assert gap(1e-3) < gap(None) + 0.05


def test_a_state_of_other_layers_is_refused() -> None:
    state = admm(parameter(4, 3)).state_dict()
    other = Admm({"v": parameter(4, 3)}, {"v": zero}, rho=1.0, config=AdmmConfig(epochs=1))
    with pytest.raises(ValueError, match="other layers"):
        other.load_state_dict(state)


@pytest.mark.parametrize("rho", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rho_that_is_no_weight_is_refused(rho: float) -> None:
    with pytest.raises(ValueError, match="rho"):
        admm(parameter(4, 3), rho=rho)


def test_projections_of_unknown_layers_are_refused() -> None:
    with pytest.raises(ValueError, match="layer"):
        Admm({"w": parameter(4, 3)}, {"v": zero}, rho=1.0, config=AdmmConfig(epochs=1))


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"pull": 0.0}, {"growth": 0.5}])
def test_nonsense_in_the_configuration_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="got"):
        AdmmConfig(**{"epochs": 1} | wrong)  # type: ignore[arg-type]
