"""A report as a document: its parts in the order in which they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cstar_core.reporting import overview
from cstar_core.reporting.details import corruptions, drift
from cstar_core.reporting.document import Document
from cstar_core.reporting.evidence import reliability
from cstar_core.reporting.layers import layers
from cstar_core.reporting.plots import plots
from cstar_core.reporting.provenance import limits, method, origin, subject
from cstar_core.reporting.reading import Part


def document(content: Mapping[str, Any]) -> Document:
    """The document of a report, whatever of it is there."""
    report = Part(content)
    return Document(
        title=subject(report),
        origin=origin(report),
        headline=report.text("verdict", "headline") or "This report gives no verdict.",
        tone=overview.tone(report),
        badges=overview.badges(report),
        tiles=overview.tiles(report),
        sections=(
            overview.targets(report),
            overview.comparison(report),
            reliability(report),
            plots(report),
            drift(report),
            corruptions(report),
            layers(report),
            method(report),
            limits(report),
        ),
    )
