"""Every code that a rejected upload can carry is explained."""

from __future__ import annotations

import re
from pathlib import Path

SOURCES = ("cstar_core/files", "cstar_core/architectures", "cstar_core/export")
ROOT = Path(__file__).parents[2]


def test_every_rejection_code_is_in_the_page_on_errors() -> None:
    text = "".join(
        path.read_text() for source in SOURCES for path in sorted((ROOT / source).rglob("*.py"))
    )
    codes = set(re.findall(r'code="([a-z_]+)"', text))
    explained = set(re.findall(r"`([a-z_]+)`", (ROOT / "docs" / "errors.md").read_text()))

    assert len(codes) > 20
    assert codes <= explained
