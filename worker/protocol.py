"""What a runner says to its supervisor: one JSON object a line (NDJSON), torch-free."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter

from store.contracts import Text
from store.logs import LogFormat

MAX_LINE_BYTES = 1 << 20
MAX_MESSAGE = 20_000
MAX_STEP = 2**31 - 1  # PostgreSQL's integer

SPEC_FILE = "spec.json"
CHECKPOINT_FILE = "checkpoint.pt"
OUTPUT_FOLDER = "output"


def _storable(value: Any) -> Any:
    """Refuse what PostgreSQL's JSON does not hold, however deep it lies."""
    match value:
        case float() if not math.isfinite(value):
            raise ValueError("a number that is not finite")
        case str() if "\0" in value:
            raise ValueError("a text with a NUL")
        case dict():
            _storable([*value, *value.values()])
        case list() | tuple():
            for item in value:
                _storable(item)
    return value


JsonObject = Annotated[dict[str, Any], AfterValidator(_storable)]


class Spec(BaseModel):
    """What a runner is to do; all paths are relative to its folder."""

    kind: str
    request: dict[str, Any]
    subject: dict[str, Any] = {}
    threads: int
    memory_bytes: int
    max_tasks: int = 4096
    checkpoint_interval_s: float
    log_format: LogFormat = "text"
    traced: bool = False
    ids: dict[str, str] = {}


class Message(BaseModel):
    """Base of all messages; unknown fields mean that the two sides do not belong together."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Progress(Message):
    """Where the work is; `progress` in 0..1 over the whole job."""

    type: Literal["progress"] = "progress"
    phase: Text = Field(max_length=64)
    progress: float = Field(ge=0.0, le=1.0)
    eta_s: float | None = None


class Metric(Message):
    """One measured value."""

    type: Literal["metric"] = "metric"
    phase: Text = Field(max_length=64)
    name: Text = Field(max_length=200)
    step: int = Field(ge=0, le=MAX_STEP)
    value: float


class Event(Message):
    """Something worth telling the client."""

    type: Literal["event"] = "event"
    name: Text = Field(max_length=64)
    data: JsonObject


class CheckpointSaved(Message):
    """A complete checkpoint lies under CHECKPOINT_FILE; `finished`: `phase` is over with it."""

    type: Literal["checkpoint"] = "checkpoint"
    phase: Text = Field(max_length=64)
    finished: bool = False


class Span(Message):
    """How long a part of the work took, for the trace of the job; nanoseconds since 1970."""

    type: Literal["span"] = "span"
    name: Text = Field(max_length=64)
    started_ns: int = Field(ge=0, lt=2**63)
    ended_ns: int = Field(ge=0, lt=2**63)


class OutputFile(BaseModel):
    """A file in the output folder that is to become an artifact."""

    model_config = ConfigDict(extra="forbid")

    kind: Text = Field(max_length=32)
    filename: str = Field(max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    media_type: Text = Field(max_length=100)


class Result(Message):
    """The work is done."""

    type: Literal["result"] = "result"
    result: JsonObject
    files: list[OutputFile] = []


class Failure(Message):
    """The work cannot be done; `code` is one of store.states.ErrorCode.

    `best` has the least that can be met of a target out of reach, under the target's name.
    """

    type: Literal["failure"] = "failure"
    code: str
    message: Text = Field(max_length=MAX_MESSAGE)
    retryable: bool = False
    best: dict[Text, int | float] = {}


class Stopped(Message):
    """The runner was asked to stop (SIGTERM), saved what it had and ends."""

    type: Literal["stopped"] = "stopped"


AnyMessage = Annotated[
    Progress | Metric | Event | CheckpointSaved | Span | Result | Failure | Stopped,
    Field(discriminator="type"),
]
_ADAPTER: TypeAdapter[AnyMessage] = TypeAdapter(AnyMessage)


def encode(message: Message) -> bytes:
    """Return a message as one line."""
    return message.model_dump_json().encode() + b"\n"


def decode(line: bytes) -> AnyMessage:
    """Return the message of a line; raises pydantic.ValidationError."""
    return _ADAPTER.validate_json(line)
