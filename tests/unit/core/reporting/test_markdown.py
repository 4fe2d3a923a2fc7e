"""`report.md`: short enough for a comment, and nothing in it that a name could turn into more."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from cstar_core.reporting import render_markdown
from cstar_core.reporting.markdown import escaped
from tests.support.reports import Kind, Verdict, sample_report

GITHUB = MarkdownIt("gfm-like", {"linkify": False, "html": True})
HOSTILE = "a|b`c\n# d <img src=x> [e](http://f.g) @h #1 https://i.j **k** ![l](m) 1. n"


@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize("verdict", get_args(Verdict))
def test_a_comment_has_verdict_targets_figures_flags_and_digests(
    kind: Kind, verdict: Verdict
) -> None:
    report = sample_report(kind=kind, verdict=verdict)
    text = _shown(render_markdown(report))
    assert report["verdict"]["headline"] in text
    assert "robust accuracy, at least" in text
    assert "45.7 % [42.6, 48.8]" in text
    assert report["evaluation"]["attacked"]["sha256"] in text
    assert all(flag["code"] in text for flag in report["verdict"]["flags"])


def test_every_table_has_as_many_cells_in_each_row() -> None:
    report = sample_report()
    report["model"]["name"] = report["job"]["id"] = HOSTILE
    table: list[str] = []
    for line in [*render_markdown(report).splitlines(), ""]:
        if line.startswith("|"):
            table.append(line)
        elif table:
            assert len({row.replace(r"\|", "").count("|") for row in table}) == 1
            table = []


@given(text=st.text(max_size=60))
def test_any_text_stays_text(text: str) -> None:
    assert _kinds(f"start {escaped(text)} end") <= {"paragraph", "text", "text_special"}


@pytest.mark.parametrize(
    "text", [HOSTILE, "- a", "1. a", "# a", "> a", "---", "===", "    a", "+ a"]
)
def test_text_at_the_start_of_a_line_stays_text(text: str) -> None:
    assert _kinds(escaped(text)) <= {"paragraph", "text", "text_special", "softbreak"}


def test_nobody_is_mentioned_and_nothing_is_linked() -> None:
    text = escaped("@someone org/repo#12 #7 https://a.b www.a.b GH-3 mail@a.b")
    for linking in ("@someone", "#12", "#7", "https://a", "www.", "GH-3", "@a"):
        assert linking not in text


def test_a_hostile_report_is_rendered_without_html_or_links() -> None:
    report = sample_report(verdict="unreliable")
    report["model"]["name"] = report["dataset"]["name"] = HOSTILE
    report["limits"] = report["notes"] = report["verdict"]["reasons"] = [HOSTILE]
    kinds = _kinds(render_markdown(report))
    assert kinds.isdisjoint({"html_block", "html_inline", "link", "image", "fence"})


def test_a_report_that_is_too_long_is_cut_and_says_so() -> None:
    report = sample_report(notes=[f"note {n} " + "x" * 400 for n in range(1000)])
    text = render_markdown(report)
    assert len(text) < 65_000
    assert "shortened" in text
    assert "45.7" in text


@pytest.mark.parametrize("name", sorted(sample_report()))
def test_a_report_without_any_one_of_its_parts_still_becomes_a_comment(name: str) -> None:
    report: dict[str, Any] = sample_report()
    del report[name]
    assert render_markdown(report).startswith("## ")


def _shown(text: str) -> str:
    """The text that a reader sees, with every space a plain one."""
    tokens = [token for parent in GITHUB.parse(text) for token in (parent.children or [])]
    return " ".join("".join(token.content for token in tokens).split())


def _kinds(text: str) -> set[str]:
    found = set()
    for parent in GITHUB.parse(text):
        for token in (parent, *(parent.children or [])):
            if token.type != "inline":
                found.add(token.type.removesuffix("_open").removesuffix("_close"))
    return found
