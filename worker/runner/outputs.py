"""The files that a runner leaves and that more than one kind of job has."""

from __future__ import annotations

from cstar_core.reporting import REPORT, REPORT_HTML, REPORT_MARKDOWN
from worker.protocol import OutputFile

JSON = "application/json"
REPORTS = (
    OutputFile(kind="report", filename=REPORT, media_type=JSON),
    OutputFile(kind="report_html", filename=REPORT_HTML, media_type="text/html"),
    OutputFile(kind="report_markdown", filename=REPORT_MARKDOWN, media_type="text/markdown"),
    OutputFile(kind="manifest", filename="manifest.json", media_type=JSON),
)
