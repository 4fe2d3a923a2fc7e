"""The methods a task may ask for: CSTAR, and the baselines it is compared with. Data, not code.

Every method sees the same number of training examples in all: what a baseline leaves out, its
last training phase gets (method.md section 7).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from cstar_core.pipeline.plans import CHANNELS, RANKS, PlanKind
from cstar_core.pipeline.profiles import Profile

Spend = Callable[[Profile], Profile]

TRAINING = frozenset({"dense_training", "admm", "fine_tuning", "training"})
COMPRESSING = frozenset({"factorising", "pruning", "narrowing"})
EQUAL_EXAMPLES = "it is trained on as many examples as cstar in all"


def _as_it_is(profile: Profile) -> Profile:
    return profile


def _ranks_chosen_once(profile: Profile) -> Profile:
    return replace(profile, admm_rho=replace(profile.admm_rho, reselect_until=0.0, ramp=0.0))


def _admm_to_fine_tuning(profile: Profile) -> Profile:
    epochs = profile.admm.epochs + profile.finetune.epochs
    return replace(
        profile,
        admm=replace(profile.admm, epochs=0),
        finetune=replace(profile.finetune, epochs=epochs),
    )


def _from_scratch(profile: Profile) -> Profile:
    """All epochs go to one training run by the recipe of the dense network, without a teacher."""
    epochs = profile.dense.epochs + profile.admm.epochs + profile.finetune.epochs
    return replace(
        profile,
        dense=replace(profile.dense, epochs=0),
        admm=replace(profile.admm, epochs=0),
        finetune=replace(profile.dense, epochs=epochs, distillation=None),
    )


@dataclass(frozen=True)
class Method:
    """A way through the pipeline.

    `shares` names its phases in order, each with about the part of the run's time it takes (they
    sum to 1). `spend` spreads the epochs of a profile over them. Of the candidates of phase
    `planning`, those of `strategies` are scored; None takes all.
    """

    name: str
    note: str
    shares: Mapping[str, float]
    plan_kind: PlanKind = RANKS
    spend: Spend = _as_it_is
    strategies: frozenset[str] | None = None

    def plans(self, strategy: str) -> bool:
        """Whether a candidate of this strategy is to be scored."""
        return self.strategies is None or strategy in self.strategies

    @property
    def phases(self) -> tuple[str, ...]:
        """The names of the phases, in order."""
        return tuple(self.shares)

    @property
    def compressed_by(self) -> str:
        """The phase that leaves the network small and not yet trained as such."""
        return next(name for name in self.phases if name in COMPRESSING)

    @property
    def last_training(self) -> str:
        """The phase after which no weight changes any more."""
        return next(name for name in reversed(self.phases) if name in TRAINING)


_START = {"checking": 0.02, "dense_training": 0.05}
_END = {"evaluating": 0.37, "exporting": 0.05}
_ADMM = {"planning": 0.04, "admm": 0.25, "factorising": 0.02, "fine_tuning": 0.2}

METHODS = {
    method.name: method
    for method in (
        Method(
            "cstar",
            "global ranks, ADMM towards them with re-selection, adversarial fine-tuning",
            {**_START, **_ADMM, **_END},
        ),
        Method(
            "fixed_rank_admm",
            f"as cstar, but the ranks of the dense network are kept; {EQUAL_EXAMPLES}",
            {**_START, **_ADMM, **_END},
            spend=_ranks_chosen_once,
        ),
        Method(
            "uniform_ranks",
            f"as cstar, but one rank fraction for all layers; {EQUAL_EXAMPLES}",
            {**_START, **_ADMM, **_END},
            strategies=frozenset({"uniform"}),
        ),
        Method(
            "one_shot_tucker",
            "global ranks, the dense network projected at once, no ADMM, whose epochs go to "
            f"fine-tuning; {EQUAL_EXAMPLES}",
            {**_START, "planning": 0.04, "factorising": 0.02, "fine_tuning": 0.45, **_END},
            spend=_admm_to_fine_tuning,
        ),
        Method(
            "filter_pruning",
            "whole channels dropped by the L1 norm of all weights tied to them, then adversarial "
            f"fine-tuning with the epochs of ADMM added; {EQUAL_EXAMPLES}",
            {**_START, "channel_planning": 0.04, "pruning": 0.02, "fine_tuning": 0.45, **_END},
            plan_kind=CHANNELS,
            spend=_admm_to_fine_tuning,
        ),
        Method(
            "small_dense",
            "a narrower network of the same architecture, trained from scratch by the recipe of "
            "the dense one, without a teacher, for the epochs of all phases; where the uploaded "
            "network is robust already, that is more than the other methods train",
            {"checking": 0.02, "narrowing": 0.02, "training": 0.54, **_END},
            plan_kind=CHANNELS,
            spend=_from_scratch,
        ),
    )
}
