"""ADMM: pulls weights onto the low-rank set while they are trained.

Scaled form of Boyd et al. (2011, section 3.1.1) for  min_W loss(W)  s.t.  W_l of low rank:
    W  by SGD on  loss(W) + rho/2 sum_l |W_l - Z_l + U_l|^2        (every batch)
    Z  = proj(W + U),   U = U + W - Z                              (every epoch)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

Projection = Callable[[Tensor], Tensor]
Projections = Mapping[str, Projection]
Select = Callable[[Mapping[str, Tensor], int], Projections]
"""From W + U of every layer and the epoch about to start, the projections to use from then on."""


@dataclass(frozen=True)
class AdmmConfig:
    """How rho moves over `epochs`.

    rho starts at `pull` (1 - momentum) / (learning rate * steps per epoch): in one epoch, SGD
    alone would close 1 - exp(-pull) of the gap. It is raised geometrically by `growth` over the
    run, by `balance` more (less) after an epoch whose primal (dual) residual exceeds the other
    more than `imbalance` times (Boyd et al. 2011, section 3.4.1), and kept below
    `max_step` / learning rate. Ranks may be selected anew until `reselect_until` of the run. Over
    its first `ramp`, not longer than that, budgets are eased: see `tightness`.
    """

    epochs: int
    pull: float = 0.4
    growth: float = 10.0
    balance: float = 2.0
    imbalance: float = 10.0
    max_step: float = 0.1
    reselect_until: float = 0.5
    ramp: float = 0.0

    def __post_init__(self) -> None:
        if self.epochs < 1 or not 0 <= self.ramp <= self.reselect_until <= 1:
            raise ValueError(f"need epochs >= 1 and 0 <= ramp <= reselect_until <= 1, got {self}")
        if min(self.pull, self.max_step) <= 0 or min(self.growth, self.balance) < 1:
            raise ValueError(f"pull and max_step are positive, factors at least 1, got {self}")

    def tightness(self, epoch: int) -> float:
        """How far the ramp has come in `epoch` (from 0), in (0, 1]: at 1 the target itself holds.

        A budget then lies this share of the way, on a logarithmic scale, from dense to target.
        """
        length = math.ceil(self.ramp * self.epochs)
        return min(1.0, (epoch + 1) / length) if length else 1.0

    def to_json(self) -> dict[str, float]:
        """The settings as a report states them."""
        return asdict(self)


def initial_rho(
    *, learning_rate: float, momentum: float, steps_per_epoch: int, pull: float = 0.4
) -> float:
    """The rho at which the penalty alone moves W about `pull` of the way to Z - U per epoch."""
    return pull * (1 - momentum) / (learning_rate * steps_per_epoch)


class Admm:
    """W (the live `parameters`), Z, U and rho; a `Constraint` of the training loop.

    `projections` maps a layer to its projection (Tucker-2 or truncated SVD); a layer it lacks is
    left free: Z = W + U, no penalty. `select`, where given, chooses new projections.
    Projections are code and not part of the state: an object that is to continue a saved run is
    made with the projections that were in force when it was saved.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        projections: Projections,
        *,
        rho: float,
        config: AdmmConfig,
        select: Select | None = None,
    ) -> None:
        if not parameters or not projections.keys() <= parameters.keys():
            raise ValueError("need at least one layer, and projections of these layers only")
        if not (math.isfinite(rho) and rho > 0):
            raise ValueError(f"rho must be positive and finite, got {rho}")
        self.parameters, self.projections = dict(parameters), dict(projections)
        self.rho, self.config, self.select = rho, config, select
        self.dual = {name: torch.zeros_like(w.detach()) for name, w in parameters.items()}
        self.target = self._project(self._weights())
        self.gaps: list[float] = []

    def penalty(self) -> Tensor:
        """rho/2 sum_l |W_l - Z_l + U_l|^2 in float32, whatever the network runs in."""
        terms = [
            (name in self.projections)
            * (weight.float() - self.target[name] + self.dual[name]).square().sum()
            for name, weight in self.parameters.items()
        ]
        return 0.5 * self.rho * torch.stack(terms).sum()

    def epoch_end(self, epoch: int, *, learning_rate: float) -> dict[str, float]:
        """Update ranks, Z, U and rho; the gap, rho and whether the run diverges, as metrics."""
        weights = self._weights()
        lifted = {name: weight + self.dual[name] for name, weight in weights.items()}
        if self.select is not None and epoch + 1 <= self.config.reselect_until * self.config.epochs:
            self.projections = dict(self.select(lifted, epoch + 1))
        previous, self.target = self.target, self._project(lifted)
        self.dual = {name: lifted[name] - self.target[name] for name in lifted}
        self.gaps.append(self.gap)
        self._set_rho(self._next_rho(previous, learning_rate=learning_rate))
        return {
            "admm_gap": self.gap,
            "admm_largest_gap": max(self.residuals.values(), default=0.0),
            "admm_rho": self.rho,
            "admm_diverging": float(self.diverging),
        }

    @property
    def residuals(self) -> dict[str, float]:
        """|W_l - Z_l| / |W_l| of each layer that is not free."""
        return {
            name: _ratio(_norm([weight - self.target[name]]), _norm([weight]))
            for name, weight in self._weights().items()
            if name in self.projections
        }

    @property
    def gap(self) -> float:
        """The mean of `residuals`: below 0.05 is the goal, above 0.3 must be reported."""
        return sum(self.residuals.values()) / max(1, len(self.projections))

    @property
    def diverging(self) -> bool:
        """Whether the last update left a gap above 1, or one that is not a number."""
        return bool(self.gaps) and not self.gaps[-1] <= 1

    def state_dict(self) -> dict[str, Any]:
        """Z, U, rho and the gaps so far; tensors and plain values only."""
        return {"target": self.target, "dual": self.dual, "rho": self.rho, "gaps": list(self.gaps)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`. Raises ValueError if it is of other layers."""
        if state["dual"].keys() != self.parameters.keys():
            raise ValueError("the saved ADMM state belongs to other layers")
        devices = {name: weight.device for name, weight in self.parameters.items()}
        self.target = {name: z.to(devices[name]) for name, z in state["target"].items()}
        self.dual = {name: u.to(devices[name]) for name, u in state["dual"].items()}
        self.rho, self.gaps = float(state["rho"]), list(state["gaps"])

    def _weights(self) -> dict[str, Tensor]:
        return {name: weight.detach() for name, weight in self.parameters.items()}

    def _project(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: self.projections.get(name, torch.clone)(weight)
            for name, weight in weights.items()
        }

    def _next_rho(self, previous: Mapping[str, Tensor], *, learning_rate: float) -> float:
        weights = self._weights()
        primal = _norm([weights[name] - self.target[name] for name in self.projections])
        dual = self.rho * _norm([self.target[name] - previous[name] for name in self.projections])
        rho = self.rho * math.pow(self.config.growth, 1 / max(1, self.config.epochs - 1))
        if primal > self.config.imbalance * dual:
            rho *= self.config.balance
        elif dual > self.config.imbalance * primal:
            rho /= self.config.balance
        return min(rho, self.config.max_step / learning_rate) if learning_rate > 0 else rho

    def _set_rho(self, rho: float) -> None:
        # The unscaled dual rho U must not jump, so U shrinks as rho grows.
        self.dual = {name: dual * (self.rho / rho) for name, dual in self.dual.items()}
        self.rho = rho


def _norm(tensors: list[Tensor]) -> float:
    return math.hypot(*(float(torch.linalg.vector_norm(t.double())) for t in tensors))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole != 0 else float(part != 0)
