"""Traces by OpenTelemetry, where an operator wants them (`CSTAR_TRACES`, extra `otel`).

One trace follows a job: the request that made it, the call that woke a worker, each attempt, and
the phases in its runner. Unless a target is set, everything here does nothing and imports nothing.
Where a context crosses processes it does so as a W3C `traceparent`
(https://www.w3.org/TR/trace-context/).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit
from urllib.request import url2pathname

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.trace import Tracer

FLUSH_MS = 2000
HEADER = "traceparent"
Role = Literal["internal", "server", "producer", "consumer"]


class TracingUnavailable(Exception):
    """`CSTAR_TRACES` is set, but OpenTelemetry is not installed."""

    def __init__(self) -> None:
        super().__init__("CSTAR_TRACES needs OpenTelemetry: pip install 'cstar-service[otel]'")


@dataclass
class _Setup:
    """What this process was told, and the providers it has opened: a fork opens its own."""

    service: str = ""
    target: str | None = None
    providers: dict[tuple[int, str], TracerProvider] = field(default_factory=dict)


_setup = _Setup()


def configure_tracing(service: str, target: str | None) -> None:
    """Send spans of this process to `otlp` or a `file:///` of JSON lines; None turns it off.

    Where OTLP goes is said by OpenTelemetry's own variables (`OTEL_EXPORTER_OTLP_ENDPOINT`, ...).
    Raises TracingUnavailable.
    """
    _setup.service, _setup.target = service, target
    if target is not None:
        try:
            import opentelemetry.sdk.trace  # noqa: F401, PLC0415
        except ImportError:
            raise TracingUnavailable from None


def traced() -> bool:
    """Say whether this process makes spans."""
    return _setup.target is not None


@contextmanager
def span(
    name: str, *, role: Role = "internal", parent: str | None = None, **attributes: str | int
) -> Iterator[None]:
    """Measure a block as a span, below `parent` (a traceparent) or the span it lies in.

    A parent that is none, such as "", begins a trace of its own.
    """
    if not traced():
        yield
        return
    from opentelemetry.trace import SpanKind  # noqa: PLC0415

    context = _context_of(parent) if parent is not None else None
    with _tracer(_setup.service).start_as_current_span(
        name, context=context, kind=SpanKind[role.upper()], attributes=_named(attributes)
    ):
        yield


def describe(name: str, **attributes: str | int) -> None:
    """Rename the current span and add to it: for what is known at its end only."""
    if not traced():
        return
    from opentelemetry.trace import get_current_span  # noqa: PLC0415

    current = get_current_span()
    current.update_name(name)
    current.set_attributes(_named(attributes))


def record(service: str, name: str, *, started_ns: int, ended_ns: int) -> None:
    """Add a span that another process has measured below the current one; times since 1970."""
    if traced():
        measured = _tracer(service).start_span(name, start_time=started_ns)
        measured.end(end_time=ended_ns)


def traceparent() -> str | None:
    """Return the current span for another process; None outside of any."""
    if not traced():
        return None
    from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
        TraceContextTextMapPropagator,
    )

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get(HEADER)


def flush() -> None:
    """Send what waits; a collector that is away holds nobody up for long."""
    for (pid, _), provider in _setup.providers.items():
        if pid == os.getpid():
            provider.force_flush(FLUSH_MS)


def _context_of(parent: str) -> Context:
    from opentelemetry.context import Context  # noqa: PLC0415
    from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
        TraceContextTextMapPropagator,
    )

    return TraceContextTextMapPropagator().extract({HEADER: parent}, Context())


def _tracer(service: str) -> Tracer:
    key = (os.getpid(), service)
    if key not in _setup.providers:
        _setup.providers[key] = _provider(service, str(_setup.target))
    return _setup.providers[key].get_tracer("cstar")


def _provider(service: str, target: str) -> TracerProvider:
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415

    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(_processor(target))
    return provider


def _processor(target: str) -> SpanProcessor:
    from opentelemetry.sdk.trace.export import (  # noqa: PLC0415
        BatchSpanProcessor,
        ConsoleSpanExporter,
        SimpleSpanProcessor,
    )

    if target != "otlp":
        path = Path(url2pathname(urlsplit(target).path))
        lines = path.open("a", buffering=1)  # whole lines, from several processes
        return SimpleSpanProcessor(
            ConsoleSpanExporter(out=lines, formatter=lambda span: f"{span.to_json(indent=None)}\n")
        )
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )

    return BatchSpanProcessor(OTLPSpanExporter())


def _named(attributes: Mapping[str, str | int]) -> dict[str, str | int]:
    """Return attributes under the names of this service (`job_id` becomes `cstar.job_id`)."""
    return {f"cstar.{name}": value for name, value in attributes.items()}
