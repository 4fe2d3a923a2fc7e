"""`report.html` in a real browser: silent, self-contained, within the screen, whole on paper.

`CSTAR_REPORT_HTML=file` looks at that page instead of the samples, and leaves pictures beside it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from cstar_core.reporting import render_html
from tests.support.chromium import Browser, browser, required_chromium
from tests.support.reports import sample_report

DESK, TELEPHONE = 1280, 390
SCHEMES = ("light", "dark")
GIVEN = os.environ.get("CSTAR_REPORT_HTML")
SAMPLES = {
    "compression": {},
    "channels": {"plan": "channels", "verdict": "unreliable"},
    "evaluation": {"kind": "evaluation", "verdict": "undecided"},
}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser(required_chromium()) as running:
        yield running


@pytest.fixture(params=["given"] if GIVEN else [*SAMPLES, "hostile", "empty"], scope="module")
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page in a file: a sample of each kind, one with long hostile names, one with nothing."""
    if GIVEN:
        return Path(GIVEN).resolve()
    written = tmp_path_factory.mktemp("report") / f"{request.param}.html"
    written.write_text(render_html(_content(request.param)), "utf-8")
    return written


def _content(name: str) -> dict[str, object]:
    if name == "empty":
        return {}
    if name != "hostile":
        return sample_report(**SAMPLES[name])
    report = sample_report()
    long = "<script>console.error('x')</script>" + "long_name_without_a_space_" * 12
    report["model"]["name"] = report["dataset"]["name"] = report["job"]["id"] = long
    report["verdict"]["headline"] = long
    for layer in report["plan"]["layers"]:
        layer["name"] = long
    report["latency"]["words"] = report["limits"][0] = long
    return report


def test_it_complains_about_nothing_and_asks_nobody(chromium: Browser, page: Path) -> None:
    chromium.open(page.as_uri())
    assert chromium.complaints() == []
    assert chromium.requests() == [page.as_uri()]


def test_the_browser_would_have_told(chromium: Browser, tmp_path: Path) -> None:
    noisy = tmp_path / "noisy.html"
    noisy.write_text("<script>console.warn('heard')</script><img src='nothing.png'>")
    chromium.open(noisy.as_uri())
    assert any("heard" in complaint for complaint in chromium.complaints())
    assert len(chromium.requests()) == 2


@pytest.mark.parametrize("width", [DESK, TELEPHONE])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_nothing_hangs_over_the_side_of_the_screen(
    chromium: Browser, page: Path, width: int, scheme: str
) -> None:
    chromium.open(page.as_uri())
    chromium.screen(width, scheme=scheme)
    assert chromium.value("document.documentElement.scrollWidth") <= width
    if GIVEN:
        picture = page.with_name(f"{page.stem}_{width}_{scheme}.png")
        picture.write_bytes(chromium.picture())


_CONTRASTS = """
(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgb = colour => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = c => { const [r, g, b] = c.slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = e => { for (; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] === 255) return c; }
    return [255, 255, 255, 255]; };
  const found = {};
  for (const e of document.querySelectorAll('body *')) {
    const words = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!words || !e.checkVisibility() || e.closest('title, desc')) continue;
    const style = getComputedStyle(e);
    const ink = rgb(e instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [light(ink), light(ground(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) found[`${e.tagName}.${e.getAttribute('class')}`] = ratio;
  }
  return found;
})()
"""


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_text_has_the_contrast_of_wcag_aa(chromium: Browser, page: Path, scheme: str) -> None:
    """4.5 to 1 (WCAG 2.2, success criterion 1.4.3)."""
    chromium.open(page.as_uri())
    chromium.screen(DESK, scheme=scheme)
    assert chromium.value(_CONTRASTS) == {}


def test_colours_follow_the_scheme(chromium: Browser, page: Path) -> None:
    chromium.open(page.as_uri())
    grounds = set()
    for scheme in SCHEMES:
        chromium.screen(DESK, scheme=scheme)
        grounds.add(chromium.value("getComputedStyle(document.body).backgroundColor"))
    assert len(grounds) == 2


def test_headings_come_in_order_and_tables_have_headers(chromium: Browser, page: Path) -> None:
    chromium.open(page.as_uri())
    levels = chromium.value("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert chromium.value("[...document.querySelectorAll('th')].every(h => h.scope)")
    assert chromium.value(
        "[...document.querySelectorAll('svg')].every(s => s.querySelector('title'))"
    )
    repeated = chromium.value(
        "[...document.querySelectorAll('[id]')].map(e => e.id)"
        ".filter((name, at, all) => all.indexOf(name) < at)"
    )
    assert repeated == []


def test_what_is_folded_is_open_on_paper(chromium: Browser, page: Path) -> None:
    chromium.open(page.as_uri())
    hidden = """[...document.querySelectorAll('details table')].filter(
        t => t.getBoundingClientRect().height === 0
          || !t.checkVisibility({contentVisibilityAuto: true})).length"""
    folded = chromium.value("document.querySelectorAll('details table').length")
    chromium.screen(DESK)
    assert chromium.value(hidden) == folded
    chromium.screen(DESK, media="print")
    assert chromium.value(hidden) == 0


def test_it_prints_black_on_white_whatever_the_scheme(chromium: Browser, page: Path) -> None:
    chromium.open(page.as_uri())
    chromium.screen(DESK, scheme="dark", media="print")
    style = "getComputedStyle(document.body)"
    assert chromium.value(f"{style}.color") == "rgb(0, 0, 0)"
    assert chromium.value(f"{style}.backgroundColor") == "rgb(255, 255, 255)"


def test_it_prints_to_pages(chromium: Browser, page: Path) -> None:
    chromium.open(page.as_uri())
    chromium.screen(DESK)
    printed = chromium.pdf()
    assert printed.startswith(b"%PDF-")
    assert re.findall(rb"/Type\s*/Page\b", printed)
