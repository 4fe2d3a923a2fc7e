"""What a runner says to its supervisor: one JSON object a line (NDJSON), torch-free."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator

MAX_LINE_BYTES = 1 << 20

SPEC_FILE = "spec.json"
CHECKPOINT_FILE = "checkpoint.pt"
OUTPUT_FOLDER = "output"


class Spec(BaseModel):
    """What a runner is to do; all paths are relative to its folder."""

    kind: str
    request: dict[str, Any]
    subject: dict[str, Any] = {}
    threads: int
    memory_bytes: int
    checkpoint_interval_s: float


class Message(BaseModel):
    """Base of all messages; unknown fields mean that the two sides do not belong together."""

    model_config = ConfigDict(extra="forbid")


class Progress(Message):
    """Where the work is; `progress` in 0..1 over the whole job."""

    type: Literal["progress"] = "progress"
    phase: str = Field(max_length=64)
    progress: float = Field(ge=0.0, le=1.0)
    eta_s: float | None = None


class Metric(Message):
    """One measured value."""

    type: Literal["metric"] = "metric"
    phase: str = Field(max_length=64)
    name: str = Field(max_length=200)
    step: int
    value: float


class Event(Message):
    """Something worth telling the client."""

    type: Literal["event"] = "event"
    name: str = Field(max_length=64)
    data: dict[str, Any]


class CheckpointSaved(Message):
    """A complete checkpoint lies under CHECKPOINT_FILE."""

    type: Literal["checkpoint"] = "checkpoint"
    phase: str = Field(max_length=64)


class OutputFile(BaseModel):
    """A file in the output folder that is to become an artifact."""

    model_config = ConfigDict(extra="forbid")

    kind: str = Field(max_length=32)
    filename: str = Field(max_length=200)
    media_type: str = Field(max_length=100)

    @field_validator("filename")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if Path(value).name != value or value in ("", ".", ".."):
            raise ValueError("an output file has a plain name")
        return value


class Result(Message):
    """The work is done."""

    type: Literal["result"] = "result"
    result: dict[str, Any]
    files: list[OutputFile] = []


class Failure(Message):
    """The work cannot be done; `code` is one of store.states.ErrorCode."""

    type: Literal["failure"] = "failure"
    code: str
    message: str = Field(max_length=20_000)
    retryable: bool = False


class Stopped(Message):
    """The runner was asked to stop (SIGTERM), saved what it had and ends."""

    type: Literal["stopped"] = "stopped"


AnyMessage = Annotated[
    Progress | Metric | Event | CheckpointSaved | Result | Failure | Stopped,
    Field(discriminator="type"),
]
_ADAPTER: TypeAdapter[AnyMessage] = TypeAdapter(AnyMessage)


def encode(message: Message) -> bytes:
    """Return a message as one line."""
    return message.model_dump_json().encode() + b"\n"


def decode(line: bytes) -> AnyMessage:
    """Return the message of a line; raises pydantic.ValidationError."""
    return _ADAPTER.validate_json(line)
