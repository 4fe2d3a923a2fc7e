"""What a runner finds and the API shows. A runner is not trusted: its words are checked here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0, lt=1 << 63)]  # the database's large integer


class PlannedLayer(BaseModel):
    """One layer of a plan; `reason` says why it stays dense, where it does.

    `ranks` is [r_out, r_in], `energy_kept` the share of |W|^2 in [0, 1]; the costs are those of
    its weight for one image, latencies in nanoseconds. `shape` is that of the dense weight.
    """

    model_config = ConfigDict(extra="allow")

    name: str
    kind: str
    method: Literal["tucker2", "svd", "dense"]
    ranks: list[int] | None
    energy_kept: float
    parameters: int
    macs: int
    bytes: int
    latency_ns: int | None
    dense_parameters: int
    dense_macs: int
    dense_bytes: int
    dense_latency_ns: int | None
    reason: str
    shape: list[int] = []


class PlannedNetwork(BaseModel):
    """A plan for a whole network, as `plan.json` of a job has it.

    Totals of all learnable parameters, of multiply-accumulates for one image, of the bytes of all
    tensors, and the time predicted for one image.
    """

    model_config = ConfigDict(extra="allow")

    name: str
    strategy: str
    ratio: float
    parameters: int
    macs: int
    bytes: int
    latency_ms: float | None
    dense_parameters: int
    dense_macs: int
    dense_bytes: int
    dense_latency_ns: int | None
    layers: list[PlannedLayer]


class PlanResult(BaseModel):
    """Every candidate a job would choose among, and which one is recommended unscored.

    `device` is where the layers were timed: elsewhere other latencies hold.
    """

    device: str
    recommended: str
    candidates: list[PlannedNetwork] = Field(min_length=1)

    @property
    def plan(self) -> PlannedNetwork:
        """The recommended candidate."""
        return next(plan for plan in self.candidates if plan.name == self.recommended)

    @model_validator(mode="after")
    def _recommends_a_candidate(self) -> PlanResult:
        if self.recommended not in {plan.name for plan in self.candidates}:
            raise ValueError("the recommended plan is none of the candidates")
        return self


class AccuracyResult(BaseModel):
    """`value` over `n` test examples with its 95 % interval [low, high], all in [0, 1]."""

    model_config = ConfigDict(extra="allow")

    value: Share
    n: int = Field(gt=0)
    interval: tuple[Share, Share]


class NetworkResult(BaseModel):
    """What was measured of one network; `robust_accuracy` has one entry for each attack."""

    model_config = ConfigDict(extra="allow")

    clean_accuracy: AccuracyResult
    robust_accuracy: dict[str, AccuracyResult]
    parameters: Count
    macs: Count
    bytes: Count
    latency_ms: dict[str, dict[str, Any]]


class TargetResult(BaseModel):
    """What was asked for and what there is; sizes have no interval."""

    model_config = ConfigDict(extra="allow")

    metric: str
    requested: float
    achieved: float
    interval: tuple[Share, Share] | None
    outcome: Literal["met", "missed"]


class VerdictResult(BaseModel):
    """Whether the targets are met, and whether the figures can be trusted."""

    model_config = ConfigDict(extra="allow")

    targets: Literal["met", "missed", "undecided", "none"]
    reliability: Literal["reliable", "unreliable"]
    label: Literal["screening", "result"]
    headline: str


class EvaluationResult(BaseModel):
    """The result of an evaluation; `before` is the baseline, where there was one."""

    targets: list[TargetResult]
    verdict: VerdictResult
    before: NetworkResult | None
    after: NetworkResult
