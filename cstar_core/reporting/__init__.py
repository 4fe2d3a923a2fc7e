"""A report for its readers: `report.html` and `report.md` from the data of `report.json`.

The schema of that data lives here too. What a report says is decided elsewhere: nothing is
measured or judged here, and neither torch nor the other parts of the method are needed.
"""

from pathlib import Path

from cstar_core.reporting.files import REPORT, REPORT_HTML, REPORT_MARKDOWN, write_report
from cstar_core.reporting.html import render_html
from cstar_core.reporting.markdown import render_markdown

SCHEMA_PATH = Path(__file__).with_name("report.schema.json")

__all__ = [
    "REPORT",
    "REPORT_HTML",
    "REPORT_MARKDOWN",
    "SCHEMA_PATH",
    "render_html",
    "render_markdown",
    "write_report",
]
