"""What a runner finds and the API shows. A runner is not trusted: its words are checked here."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class PlannedLayer(BaseModel):
    """One layer of a plan; `reason` says why it stays dense, where it does.

    `ranks` is [r_out, r_in], `energy_kept` the share of |W|^2 in [0, 1]; the costs are those of
    its weight for one image, latencies in nanoseconds.
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
