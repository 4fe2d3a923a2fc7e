"""A line of a log says when, who, what and for whom, and stays one line."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest

from store.context import ids, working_for
from store.logs import JsonFormatter, LogFormat, TextFormatter, configure_logging

Say = Callable[..., dict[str, Any]]


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, as it was before when the test is over."""
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield logger
    logger.handlers[:], logger.level = handlers, level


def record(message: str, *values: object, **more: Any) -> logging.LogRecord:
    return logging.getLogger("here").makeRecord(
        "here", logging.WARNING, "file", 1, message, values, more.pop("exc_info", None), extra=more
    )


def as_json(found: logging.LogRecord) -> dict[str, Any]:
    line = JsonFormatter("api").format(found)
    assert "\n" not in line
    return dict(json.loads(line))


def test_a_line_says_when_who_and_what() -> None:
    line = as_json(record("%s is full", "the disk"))
    assert (line["level"], line["service"], line["logger"]) == ("warning", "api", "here")
    assert line["message"] == "the disk is full"
    assert datetime.fromisoformat(line["time"]).tzinfo is not None


def test_a_line_names_what_is_worked_for() -> None:
    with working_for(request_id="req_1"), working_for(job_id="job_1", attempt=2, worker_id=None):
        line = as_json(record("hello"))
        text = TextFormatter().format(record("hello"))
    assert (line["request_id"], line["job_id"], line["attempt"]) == ("req_1", "job_1", "2")
    assert "worker_id" not in line
    assert text.endswith("hello  [request_id=req_1 job_id=job_1 attempt=2]")


def test_what_a_client_sent_forges_no_line_and_no_colour() -> None:
    line = TextFormatter().format(record("POST %s", "/x\n2026-01-01 INFO all is well\x1b[2J"))
    assert line.isprintable()
    assert r"POST /x\n2026-01-01 INFO all is well\x1b[2J" in line


def test_a_traceback_for_people_keeps_its_lines() -> None:
    try:
        raise KeyError("secret")
    except KeyError:
        text = TextFormatter().format(record("it failed", exc_info=sys.exc_info()))
    assert text.splitlines()[1].startswith("Traceback")


def test_what_is_over_is_not_named() -> None:
    with working_for(job_id="job_1"):
        pass
    assert "job_id" not in as_json(record("hello"))


def test_another_thread_works_for_somebody_else() -> None:
    seen: list[dict[str, str]] = []
    with working_for(job_id="job_1"):
        thread = threading.Thread(target=lambda: seen.append(ids()))
        thread.start()
        thread.join()
    assert seen == [{}]


def test_extra_values_are_told_whatever_they_are() -> None:
    assert as_json(record("hello", took_ms=3))["took_ms"] == 3
    assert "object" in as_json(record("hello", what=object()))["what"]


def test_a_traceback_stays_in_its_line() -> None:
    try:
        raise ValueError("a line\nand another")
    except ValueError as error:
        found = record("it broke", exc_info=(type(error), error, error.__traceback__))
    assert "ValueError: a line\nand another" in as_json(found)["exception"]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_libraries_log_has_the_same_form(
    root: logging.Logger, capsys: pytest.CaptureFixture[str], log_format: LogFormat
) -> None:
    configure_logging("scheduler", log_format)
    logging.getLogger("a.library").info("hello")
    logging.getLogger("a.library").debug("too much")
    written = capsys.readouterr().err
    assert written.count("\n") == 1
    assert written.startswith("{") == (log_format == "json")
