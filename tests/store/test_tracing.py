"""Traces cross processes as traceparents, and cost nothing where nobody wants them."""

from __future__ import annotations

import gzip
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from store import tracing
from store.context import working_for
from store.database import Database
from store.origins import origins
from store.states import JobKind
from store.submit import submit
from tests.support import rows

Spans = Callable[[], list[dict[str, Any]]]
UNWANTED = """
import sys
from store import tracing
with tracing.span("nothing"):
    assert tracing.traceparent() is None
tracing.record("other", "nothing", started_ns=1, ended_ns=2)
tracing.flush()
print(*[name for name in sys.modules if name.startswith("opentelemetry")])
"""

SENT = """
from store import tracing
tracing.configure_tracing("cstar-api", "otlp")
with tracing.span("GET /v1/jobs", role="server", job_id="job_1"):
    pass
tracing.flush()
"""


@pytest.fixture
def collector() -> Iterator[tuple[str, queue.Queue[tuple[str, bytes]]]]:
    """Listen as an OTLP collector does: its address, and the paths and bodies it was sent."""
    received: queue.Queue[tuple[str, bytes]] = queue.Queue()

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            zipped = self.headers.get("Content-Encoding") == "gzip"
            received.put((self.path, gzip.decompress(body) if zipped else body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", received
        server.shutdown()


@pytest.fixture
def spans(tmp_path: Path) -> Iterator[Spans]:
    """Tracing goes to a file; the function returns what lies there."""
    path = tmp_path / "traces.jsonl"
    tracing.configure_tracing("here", path.as_uri())

    def read() -> list[dict[str, Any]]:
        return [json.loads(line) for line in path.read_text().splitlines()]

    yield read
    tracing.configure_tracing("here", None)
    tracing._setup.providers.clear()


def test_without_a_target_nothing_is_made_or_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNWANTED], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == ""


def test_a_span_lies_in_the_one_around_it(spans: Spans) -> None:
    with tracing.span("outer"), tracing.span("inner", job_id="job_1"):
        pass
    inner, outer = spans()
    assert inner["parent_id"] == outer["context"]["span_id"]
    assert inner["attributes"] == {"cstar.job_id": "job_1"}


def test_a_traceparent_carries_the_trace_into_another_process(spans: Spans) -> None:
    with tracing.span("request", role="server"):
        sent = tracing.traceparent()
    with tracing.span("attempt", role="consumer", parent=sent):
        pass
    request, attempt = spans()
    assert attempt["context"]["trace_id"] == request["context"]["trace_id"]
    assert attempt["parent_id"] == request["context"]["span_id"]


@pytest.mark.parametrize("nonsense", ["", "00-zz", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_a_traceparent_that_is_none_begins_a_trace_of_its_own(spans: Spans, nonsense: str) -> None:
    with tracing.span("attempt", parent=nonsense):
        pass
    assert spans()[0]["parent_id"] is None


def test_what_another_process_has_measured_keeps_its_times(spans: Spans) -> None:
    with tracing.span("attempt"):
        tracing.record("cstar-runner", "admm", started_ns=10**9, ended_ns=3 * 10**9)
    measured, attempt = spans()
    assert measured["parent_id"] == attempt["context"]["span_id"]
    assert measured["resource"]["attributes"]["service.name"] == "cstar-runner"
    assert measured["start_time"].startswith("1970-01-01T00:00:01")
    assert measured["end_time"].startswith("1970-01-01T00:00:03")


def test_a_span_is_renamed_when_its_route_is_known(spans: Spans) -> None:
    with tracing.span("GET", role="server"):
        tracing.describe("GET /v1/jobs/{job_id}", status=200)
    assert spans()[0]["name"] == "GET /v1/jobs/{job_id}"


@pytest.mark.usefixtures("spans")
def test_a_job_remembers_the_request_and_the_trace_that_made_it(database: Database) -> None:
    tenant_id = rows.add_tenant(database)
    with (
        working_for(request_id="req_1"),
        tracing.span("request"),
        database.writing() as session,
    ):
        wanted = {"request_id": "req_1", "traceparent": tracing.traceparent()}
        job = submit(session, tenant_id=tenant_id, kind=JobKind.COMPRESS, queue="q", request={})
    with database.reading() as session:
        assert origins(session, [job.id]) == {job.id: wanted}


def test_a_job_that_nobody_asked_for_remembers_nothing(database: Database) -> None:
    tenant_id = rows.add_tenant(database)
    with database.writing() as session:
        job = submit(session, tenant_id=tenant_id, kind=JobKind.COMPRESS, queue="q", request={})
    with database.reading() as session:
        assert origins(session, [job.id]) == {job.id: {}}


def test_spans_reach_a_collector_as_otlp_over_http(
    collector: tuple[str, queue.Queue[tuple[str, bytes]]],
) -> None:
    address, received = collector
    environment = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": address}
    subprocess.run([sys.executable, "-c", SENT], check=True, env=environment)
    path, body = received.get(timeout=60)
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    (scope,) = resource.scope_spans
    assert path == "/v1/traces"
    assert {"cstar-api"} == {
        a.value.string_value for a in resource.resource.attributes if a.key == "service.name"
    }
    assert [span.name for span in scope.spans] == ["GET /v1/jobs"]
