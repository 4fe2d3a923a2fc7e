"""What a runner may say, and what is refused before it can reach the database."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from worker.protocol import (
    MAX_STEP,
    AnyMessage,
    CheckpointSaved,
    Event,
    Failure,
    Metric,
    OutputFile,
    Progress,
    Result,
    Stopped,
    decode,
    encode,
)

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=32)
numbers = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
json_objects = st.dictionaries(texts, json_values, max_size=4)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,40}", fullmatch=True)
files = st.builds(OutputFile, kind=texts, filename=names, media_type=texts)
messages = st.one_of(
    st.builds(Progress, phase=texts, progress=st.floats(0, 1), eta_s=st.none() | numbers),
    st.builds(Metric, phase=texts, name=texts, step=st.integers(0, MAX_STEP), value=numbers),
    st.builds(Event, name=texts, data=json_objects),
    st.builds(CheckpointSaved, phase=texts, finished=st.booleans()),
    st.builds(Result, result=json_objects, files=st.lists(files, max_size=3)),
    st.builds(
        Failure,
        code=texts,
        message=texts,
        retryable=st.booleans(),
        best=st.dictionaries(texts, st.integers(1, 2**63 - 1) | numbers, max_size=3),
    ),
    st.just(Stopped()),
)

PROGRESS = {"type": "progress", "phase": "admm", "progress": 0.5}
METRIC = {"type": "metric", "phase": "admm", "name": "gap", "step": 1, "value": 0.5}
EVENT = {"type": "event", "name": "ranks.planned", "data": {}}
RESULT = {"type": "result", "result": {}}
FAILURE = {"type": "failure", "code": "internal", "message": "no"}


def refused(message: dict[str, Any]) -> bool:
    with pytest.raises(ValidationError):
        decode(json.dumps(message).encode())
    return True


@settings(deadline=None)
@given(messages)
def test_every_message_arrives_as_it_was_said(message: AnyMessage) -> None:
    line = encode(message)

    assert line.endswith(b"\n")
    assert b"\n" not in line[:-1]
    assert decode(line[:-1]) == message


@pytest.mark.parametrize("message", [PROGRESS, METRIC, EVENT, RESULT, FAILURE])
def test_an_unknown_field_is_refused(message: dict[str, Any]) -> None:
    assert decode(json.dumps(message).encode())
    assert refused({**message, "more": 1})


@pytest.mark.parametrize("kind", ["", "job", "Result", None, 7])
def test_an_unknown_type_is_refused(kind: object) -> None:
    assert refused({**RESULT, "type": kind})


def test_a_message_without_a_type_is_refused() -> None:
    assert refused({"result": {}})


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/b", "/etc/passwd", "a\\b", ".hidden", "a\0b", "a\n", "x" * 201],
)
def test_an_output_file_has_a_plain_name(name: str) -> None:
    file = {"kind": "report", "filename": name, "media_type": "application/json"}

    assert refused({**RESULT, "files": [file]})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "place",
    [
        lambda value: {**METRIC, "value": value},
        lambda value: {**PROGRESS, "progress": value},
        lambda value: {**PROGRESS, "eta_s": value},
        lambda value: {**EVENT, "data": {"deep": [{"gap": value}]}},
        lambda value: {**RESULT, "result": {"ratio": value}},
    ],
    ids=["metric", "progress", "eta", "event", "result"],
)
def test_a_number_that_is_not_finite_is_refused(place: Any, value: float) -> None:
    assert refused(place(value))


def test_a_number_too_large_to_be_finite_is_refused() -> None:
    with pytest.raises(ValidationError):
        decode(b'{"type": "event", "name": "x", "data": {"gap": 1e999}}')


@pytest.mark.parametrize(
    "message",
    [
        {**PROGRESS, "phase": "ad\0mm"},
        {**METRIC, "name": "\0"},
        {**EVENT, "name": "\0"},
        {**EVENT, "data": {"deep": [{"text": "a\0b"}]}},
        {**EVENT, "data": {"a\0b": 1}},
        {**RESULT, "result": {"text": "\0"}},
        {**FAILURE, "message": "\0"},
    ],
)
def test_a_text_with_a_nul_is_refused(message: dict[str, Any]) -> None:
    assert refused(message)


@pytest.mark.parametrize("step", [-1, MAX_STEP + 1, 10**30])
def test_a_step_that_fits_no_integer_column_is_refused(step: int) -> None:
    assert refused({**METRIC, "step": step})


@pytest.mark.parametrize("progress", [-0.01, 1.01])
def test_progress_is_a_fraction(progress: float) -> None:
    assert refused({**PROGRESS, "progress": progress})


@pytest.mark.parametrize("line", [b"", b"null", b"[]", b"{", b"\xff\xfe", b"Epoch 1: loss 0.3"])
def test_what_is_no_message_is_refused(line: bytes) -> None:
    with pytest.raises(ValidationError):
        decode(line)
