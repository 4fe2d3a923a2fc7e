"""What a client may ask for. Read by the API and by the runner, so it imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

Positive = Annotated[int, Field(gt=0)]
# PostgreSQL's text holds no NUL. A pattern also refuses half a surrogate pair, which UTF-8 has not.
Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
RankMultiple = Annotated[int, Field(ge=1, le=64)]
ProfileName = Literal["quick", "paper", "best"]
RequestedKind = Literal["compress", "evaluate"]
Device = Literal["any", "cpu", "gpu"]
# CSTAR and what it is compared with, as in cstar_core.pipeline.methods.
Method = Literal[
    "cstar",
    "fixed_rank_admm",
    "uniform_ranks",
    "one_shot_tucker",
    "filter_pruning",
    "small_dense",
]


class Contract(BaseModel):
    """Base of all request bodies: an unknown field is a mistake, not something to ignore."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _is_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what pydantic would make a number of: `false` and `"7"` are none in JSON."""
        kinds = _kinds(cls.model_fields[str(info.field_name)].annotation)
        if kinds & {int, float} and not kinds & {bool, str}:
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, bool | str):
                    raise PydanticCustomError("number_type", "Input should be a number")
        return value


def _kinds(annotation: Any) -> frozenset[Any]:
    """Return the types of values that an annotation is about, itself or in a list."""
    if parts := get_args(annotation):
        return frozenset[Any]().union(*map(_kinds, parts))
    return frozenset([annotation])


class InputSpec(Contract):
    """What the network eats: (C, H, W) images in [0, 1], then (x - mean) / std per channel."""

    shape: tuple[Positive, Positive, Positive]
    mean: list[float]
    std: list[Annotated[float, Field(gt=0)]]

    @model_validator(mode="after")
    def _one_value_a_channel(self) -> InputSpec:
        channels = self.shape[0]
        if len(self.mean) != channels or len(self.std) != channels:
            raise ValueError(f"mean and std need one value for each of the {channels} channels")
        return self


class NamedArchitecture(Contract):
    """An architecture of the registry; arguments left out are read off the weights' shapes."""

    name: Text
    arguments: dict[Text, int | bool | Text] = {}


class ModelRequest(Contract):
    """Body of `POST /v1/models`."""

    name: Text = Field(min_length=1, max_length=200)
    file_id: Text
    architecture: Literal["auto"] | NamedArchitecture = "auto"
    input: InputSpec
    num_classes: int = Field(ge=2, lt=2**31)


class RegistrationRequest(Contract):
    """Body of `POST /v1/jobs/{id}/model`; without a `name` it is a version of the parent's."""

    name: Text | None = Field(None, min_length=1, max_length=200)


class DatasetRequest(Contract):
    """Body of `POST /v1/datasets`; `seed` drives the split where the file has none."""

    name: Text = Field(min_length=1, max_length=200)
    file_id: Text
    format: Literal["npz", "image_folder"] = "npz"
    seed: int = Field(0, ge=0, lt=2**31)


class CompressionTarget(Contract):
    """How small: at least one limit; several hold at once. `ratio` counts all parameters.

    `max_bytes` counts the tensors of the exported network, `max_latency_ms` one image in
    milliseconds on the device of the worker.
    """

    ratio: float | None = Field(None, gt=1.0)
    max_params: Positive | None = None
    max_macs: Positive | None = None
    max_bytes: Positive | None = None
    max_latency_ms: float | None = Field(None, gt=0.0)

    @model_validator(mode="after")
    def _at_least_one(self) -> CompressionTarget:
        limits = CompressionTarget.model_fields
        if all(getattr(self, name) is None for name in limits):
            raise ValueError(f"give at least one of {', '.join(limits)}")
        return self


class RobustnessTarget(Contract):
    """Against whom: `epsilon` is in [0, 1] pixel space; `min_accuracy` is AutoAttack's."""

    norm: Literal["linf", "l2"] = "linf"
    epsilon: float = Field(gt=0.0)
    min_accuracy: Fraction | None = None

    @model_validator(mode="after")
    def _within_pixel_space(self) -> RobustnessTarget:
        if self.norm == "linf" and self.epsilon > 1.0:
            raise ValueError("an L-inf epsilon is in [0, 1] pixel space (8/255 is 0.03137)")
        return self


class Targets(Contract):
    """What the model must be; `compression` is for a compression, which cannot do without."""

    compression: CompressionTarget | None = None
    robustness: RobustnessTarget
    min_clean_accuracy: Fraction | None = None


class Evaluation(Contract):
    """On how many test examples: `examples` for PGD-20, `autoattack_examples` for AutoAttack.

    `probe_examples` for what is beside the headline: the curve over epsilon, more steps,
    corruptions, JPEG and the planted example.
    """

    examples: Positive = 1000
    autoattack_examples: Positive = 64
    probe_examples: Positive = 256


class PlanTargets(Contract):
    """The targets of a job, of which a dry run looks at `compression` alone."""

    compression: CompressionTarget
    robustness: RobustnessTarget | None = None
    min_clean_accuracy: Fraction | None = None


class PlanOptions(Contract):
    """Departures from the profile that change ranks; None leaves the profile's value."""

    rank_multiple: RankMultiple | None = None


class PlanRequest(Contract):
    """Body of `POST /v1/plans`: the ranks a job of this profile would choose among."""

    model_id: Text
    profile: ProfileName = "quick"
    targets: PlanTargets
    options: PlanOptions = PlanOptions()


class Options(Contract):
    """Departures from the profile; None leaves the profile's value."""

    augmentation: Literal["none", "crop", "crop_flip"] | None = None
    dense_epochs: Annotated[int, Field(ge=0, le=1000)] | None = None
    admm_epochs: Annotated[int, Field(ge=1, le=1000)] | None = None
    finetune_epochs: Annotated[int, Field(ge=1, le=1000)] | None = None
    examples_per_epoch: Positive | None = None
    rank_multiple: RankMultiple | None = None


class JobRequest(Contract):
    """Body of `POST /v1/jobs`: a compression, or an evaluation of a model as it is.

    An evaluation takes none of `method`, `profile`, `options` and `targets.compression`; with
    `baseline_model_id` it compares the model with another one, example by example. `device` is
    the class of workers to wait for; `any` leaves it to the operator.
    """

    kind: RequestedKind = "compress"
    model_id: Text
    dataset_id: Text
    baseline_model_id: Text | None = None
    method: Method = "cstar"
    profile: ProfileName = "quick"
    seed: int = Field(0, ge=0, lt=2**31)
    targets: Targets
    evaluation: Evaluation = Evaluation()
    options: Options = Options()
    labels: dict[Text, Text] = Field(default={}, max_length=32)
    priority: int = Field(0, ge=-100, le=100)
    device: Device = "any"
    max_runtime_s: int | None = Field(None, gt=0, lt=2**31)

    @property
    def compression(self) -> CompressionTarget:
        """How small the model must become; a compression alone has it."""
        assert self.targets.compression is not None
        return self.targets.compression

    @model_validator(mode="after")
    def _fits_its_kind(self) -> JobRequest:
        faults = self._of_an_evaluation() if self.kind == "evaluate" else self._of_a_compression()
        if faults:  # each with the place of its own in the body
            raise ValidationError.from_exception_data(type(self).__name__, faults)
        return self

    def _of_a_compression(self) -> list[InitErrorDetails]:
        faults = self._of_its_limits()
        if self.baseline_model_id is not None:
            why = "a compression is compared with the model it began with; leave it out"
            faults.append(_misplaced("baseline_model_id", why=why))
        return faults

    def _of_its_limits(self) -> list[InitErrorDetails]:
        if self.targets.compression is not None:
            return []
        place = ("targets", "compression")
        return [InitErrorDetails(type="missing", loc=place, input=self.targets)]

    def _of_an_evaluation(self) -> list[InitErrorDetails]:
        why = 'an evaluation changes nothing of the model; leave it out, or ask for "compress"'
        given = [name for name in _OF_A_COMPRESSION if name in self.model_fields_set]
        faults = [_misplaced(name, why=why) for name in given]
        if self.targets.compression is not None:
            faults.append(_misplaced("targets", "compression", why=why))
        return faults

    @model_serializer(mode="wrap")
    def _without_what_is_not_its_own(
        self, written: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        left_out = _OF_A_COMPRESSION if self.kind == "evaluate" else ()
        fields: dict[str, Any] = written(self)
        return {name: value for name, value in fields.items() if name not in left_out}


_OF_A_COMPRESSION = ("method", "profile", "options")
MAX_SWEEP_JOBS = 50
_LISTS = {"ratios", "profiles", "seeds"}


class SweepRequest(JobRequest):
    """Body of `POST /v1/sweeps`: a compression, and lists of what is to be tried in it.

    There is a job for each combination of `ratios`, `profiles` and `seeds`; a list left out
    leaves the field of its name. With `ratios`, `targets.compression` may be left out, or have
    further limits that hold for every ratio.
    """

    kind: Literal["compress"] = "compress"
    ratios: list[Annotated[float, Field(gt=1.0)]] = Field([], max_length=MAX_SWEEP_JOBS)
    profiles: list[ProfileName] = Field([], max_length=MAX_SWEEP_JOBS)
    seeds: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field([], max_length=MAX_SWEEP_JOBS)

    def jobs(self) -> list[JobRequest]:
        """Return the jobs in the order of the lists, seeds going fastest."""
        base = self.model_dump(exclude=_LISTS, exclude_unset=True)
        ratios: Sequence[float | None] = self.ratios or [None]
        return [
            JobRequest.model_validate(base | self._with(ratio) | profile | seed)
            for ratio in ratios
            for profile in _choices("profile", self.profiles)
            for seed in _choices("seed", self.seeds)
        ]

    def _with(self, ratio: float | None) -> dict[str, Any]:
        if ratio is None:
            return {}
        targets = self.targets.model_dump(exclude_unset=True)
        compression = (targets.get("compression") or {}) | {"ratio": ratio}
        return {"targets": targets | {"compression": compression}}

    @model_validator(mode="after")
    def _is_a_sweep(self) -> SweepRequest:
        lists: dict[str, list[Any]] = {name: getattr(self, name) for name in sorted(_LISTS)}
        faults = [
            _misplaced(name, why="a value is there twice; leave the second out")
            for name, values in lists.items()
            if len(set(values)) < len(values)
        ]
        count = prod(max(len(values), 1) for values in lists.values())
        if not any(lists.values()):
            faults.append(_misplaced("ratios", why="give ratios, profiles or seeds to try"))
        if count > MAX_SWEEP_JOBS:
            why = f"these are {count} jobs; a sweep has at most {MAX_SWEEP_JOBS}"
            faults.append(_misplaced(why=why))
        if faults:
            raise ValidationError.from_exception_data(type(self).__name__, faults)
        return self

    def _of_its_limits(self) -> list[InitErrorDetails]:
        if not self.ratios:
            return super()._of_its_limits() if self.profiles or self.seeds else []
        if self.targets.compression is None or self.targets.compression.ratio is None:
            return []
        return [_misplaced("targets", "compression", "ratio", why="ratios are given; leave it out")]


def _choices(name: str, values: Sequence[object]) -> list[dict[str, object]]:
    """Return each value for a field; one choice, that leaves it, without any."""
    return [{name: value} for value in values] or [{}]


def _misplaced(*place: str, why: str) -> InitErrorDetails:
    return InitErrorDetails(type=PydanticCustomError("misplaced", why), loc=place, input=None)


def document(contract: Contract) -> dict[str, Any]:
    """Return a request as plain JSON data, defaults included."""
    return contract.model_dump(mode="json")
