"""`report.html`: one file, without scripts and without a request to anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cstar_core.reporting.build import document


def render_html(report: Mapping[str, Any]) -> str:
    """The report as a page for light and dark screens, telephones and paper.

    Every string of the report is escaped, as names of models and classes are the client's. Parts
    that are missing are said to be; nothing a report may hold makes this raise.
    """
    page = _environment().get_template("report.html.j2")
    return page.render(document=document(report), style=_style())


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("cstar_core.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["kind"] = lambda block: type(block).__name__.lower()
    environment.filters["drawing"] = Markup  # charts escape what they are given
    return environment


@cache
def _style() -> Markup:
    """The stylesheet, which is ours and not escaped."""
    text = files("cstar_core.reporting").joinpath("templates", "style.css").read_text("utf-8")
    return Markup(text)  # noqa: S704
