"""One log format for every process of the service: text for people, or a JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal

from store.context import ids

LogFormat = Literal["text", "json"]
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure_logging(service: str, log_format: LogFormat) -> None:
    """Send what this process logs, from INFO on, to standard error; `service` names it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service) if log_format == "json" else TextFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


class JsonFormatter(logging.Formatter):
    """Time (RFC 3339, UTC), level, service, logger, message, ids, and what `extra` brought."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
            **ids(),
            **_extra(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """The same for people: the ids stand behind the message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s%(ids)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line, with the traceback below it if there is one."""
        named = {**ids(), **_extra(record)}
        words = " ".join(f"{name}={value}" for name, value in named.items())
        record.ids = f"  [{words}]" if words else ""
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line itself: what a client sent neither ends it nor colours a terminal."""
        return visible(super().formatMessage(record).rstrip())


def visible(text: str) -> str:
    """Return a text with what cannot be printed (line ends, escape sequences) spelt out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _OWN | {"ids"}}
