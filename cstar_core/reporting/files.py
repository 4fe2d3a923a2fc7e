"""The files of a report: the data, and what people read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cstar_core.reporting.html import render_html
from cstar_core.reporting.markdown import render_markdown

REPORT, REPORT_HTML, REPORT_MARKDOWN = "report.json", "report.html", "report.md"


def write_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Write the report as JSON, HTML and Markdown; raises ValueError if it holds NaN."""
    text = json.dumps(report, indent=1, allow_nan=False) + "\n"
    (folder / REPORT).write_text(text, "utf-8")
    (folder / REPORT_HTML).write_text(render_html(report), "utf-8")
    (folder / REPORT_MARKDOWN).write_text(render_markdown(report), "utf-8")
