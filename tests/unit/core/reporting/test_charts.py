"""Charts: scales, ticks, labels that do not collide, SVG that parses."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cstar_core.reporting import charts
from cstar_core.reporting.build import document
from cstar_core.reporting.charts import Axis, Labelled, axis_over, log_ticks, round_ticks
from cstar_core.reporting.document import Figure
from cstar_core.reporting.svg import drawing, element
from tests.support.reports import sample_report

finite = st.floats(-1e12, 1e12)
positive = st.floats(1e-9, 1e12)


@given(low=finite, high=finite)
def test_round_ticks_are_few_evenly_spaced_and_within_the_axis(low: float, high: float) -> None:
    assume(high - low > 1e-6 * max(1.0, abs(low), abs(high)))
    ticks = round_ticks(low, high)
    assert 2 <= len(ticks) <= 6
    span = high - low
    assert all(low - 1e-6 * span <= tick <= high + 1e-6 * span for tick in ticks)
    steps = [b - a for a, b in pairwise(ticks)]
    assert max(steps) - min(steps) < 1e-6 * span


@given(low=positive, factor=st.floats(10, 1e9))
def test_log_ticks_are_within_the_axis_and_not_too_many(low: float, factor: float) -> None:
    ticks = log_ticks(low, low * factor)
    assert 1 <= len(ticks) <= 8
    assert all(low <= tick <= low * factor for tick in ticks)


@given(kind=st.sampled_from(["linear", "log", "root"]), a=positive, b=positive)
def test_an_axis_keeps_order_and_ends(kind: charts.Kind, a: float, b: float) -> None:
    low, high = sorted((a, b))
    assume(high > low * (1 + 1e-6))
    axis = Axis(low, high, 10, 200, kind)
    assert axis(low) == pytest.approx(10)
    assert axis(high) == pytest.approx(200)
    assert 10 <= axis((low + high) / 2) <= 200


def test_sizes_that_span_a_decade_are_drawn_on_a_logarithmic_axis() -> None:
    assert axis_over([1e4, 9e4], 0, 1).kind == "linear"
    assert axis_over([1e4, 1e5], 0, 1).kind == "log"


@given(wished=st.lists(st.floats(20, 200), max_size=15))
def test_labels_beside_points_keep_their_distance(wished: list[float]) -> None:
    heights = charts._spread(sorted(wished), low=20, high=200, gap=12)
    assert all(b - a >= 12 - 1e-6 for a, b in pairwise(heights))
    assert all(20 - 1e-6 <= height <= 200 + 1e-6 for height in heights)


def test_the_chosen_candidate_keeps_its_label_among_many() -> None:
    points = [Labelled(f"plan-{n}", n + 1.0, n / 100, chosen=n == 0) for n in range(60)]
    x, y = Axis(0, 61, 44, 240), Axis(0, 1, 200, 26)
    text = str(charts.labelled_points(points, x, y, column=262))
    assert ">plan-0</text>" in text
    assert ">plan-1</text>" not in text


@pytest.mark.parametrize("plan", ["ranks", "channels"])
def test_every_drawing_parses_and_tells_what_it_shows(plan: str) -> None:
    drawings = _drawings(plan=plan)
    assert len(drawings) == 4
    for text in drawings:
        root = ElementTree.fromstring(text)
        assert root.find("title") is not None
        assert root.find("desc") is not None
        named = root.attrib["aria-labelledby"].split()
        assert [root.find("title").attrib["id"], root.find("desc").attrib["id"]] == named


def test_every_drawing_stays_within_its_frame() -> None:
    for text in _drawings():
        root = ElementTree.fromstring(text)
        width, height = (float(side) for side in root.attrib["viewBox"].split()[2:])
        for name, end in (("x", width), ("cx", width), ("y", height), ("cy", height)):
            assert all(-1 <= float(value) <= end + 1 for value in _values(root, name))


def test_no_coordinate_is_missing_or_infinite() -> None:
    assert not re.search(r"\b(nan|inf)\b", "".join(_drawings()), re.IGNORECASE)


def test_the_curve_marks_chance_and_the_target() -> None:
    curve = _drawings()[0]
    assert "chance, 10" in curve
    assert "target 8/255" in curve


def test_text_and_attributes_are_escaped() -> None:
    text = drawing(
        element("text", "<b>&", x='"><script>'),
        width=1,
        height=1,
        key="k",
        title="</title><script>",
        description="'\"<",
    )
    assert "<script>" not in text
    assert ElementTree.fromstring(text).find("title").text == "</title><script>"


def _drawings(**kinds: str) -> list[str]:
    sections = document(sample_report(**kinds)).sections
    plots = next(section for section in sections if section.anchor == "plots")
    return [d for block in plots.blocks if isinstance(block, Figure) for d in block.drawings]


def _values(root: ElementTree.Element, name: str) -> list[float]:
    found = [float(part.attrib[name]) for part in root.iter() if name in part.attrib]
    assert all(math.isfinite(value) for value in found)
    return found
