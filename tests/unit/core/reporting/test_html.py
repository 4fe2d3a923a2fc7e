"""`report.html`: complete, escaped, and never in the way of a job."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cstar_core.reporting import render_html
from tests.support.reports import Kind, Plan, Verdict, sample_report

HOSTILE = "</title></style></text><script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}"
VOID = {"meta", "link", "br", "img"}
Path = tuple[str | int, ...]


class Page(HTMLParser):
    """What a browser would see: elements, attributes, text; unbalanced tags are errors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str | None]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        """All text, with every space a plain one."""
        return re.sub(r"\s+", " ", " ".join(self.texts))

    def values(self, name: str) -> list[str]:
        """The values of an attribute, wherever it is."""
        return [value or "" for _, attribute, value in self.attributes if attribute == name]


def read(report: dict[str, Any]) -> Page:
    return Page(render_html(report))


@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize("verdict", get_args(Verdict))
@pytest.mark.parametrize("plan", get_args(Plan))
def test_a_page_is_well_formed_and_says_its_verdict_first(
    kind: Kind, verdict: Verdict, plan: Plan
) -> None:
    report = sample_report(kind=kind, verdict=verdict, plan=plan)
    page = read(report)
    headline = report["verdict"]["headline"]
    assert page.text.index(headline) < page.text.index("Targets")
    assert page.elements["h1"] == 1
    assert page.elements["h2"] == 9


def test_sections_come_in_the_order_in_which_they_are_asked_for() -> None:
    anchors = re.findall(r'<section id="([a-z]+)"', render_html(sample_report()))
    assert anchors == [
        "targets",
        "figures",
        "reliability",
        "plots",
        "drift",
        "corruptions",
        "layers",
        "method",
        "limits",
    ]


def test_a_page_has_no_script_and_asks_nobody_for_anything() -> None:
    page = read(sample_report())
    assert page.elements["script"] == 0
    assert not any(name.startswith("on") for _, name, _ in page.attributes)
    assert all(target.startswith("#") or target == "data:," for target in page.values("href"))
    assert not page.values("src")
    assert any("default-src 'none'" in policy for policy in page.values("content"))
    assert "url(" not in render_html(sample_report())


@pytest.mark.parametrize(
    "figure",
    [
        "45.7 % [42.6, 48.8]",  # robust accuracy with its interval
        "−1.1 points, p < 0.0001",  # noqa: RUF001 - McNemar
        "4.29× smaller",  # noqa: RUF001 - size
        "256, screening",  # a small n says so
        "31 of 32 found, 90 % required",  # the planted self-test
        "PGD-100 broke 2 of 256 images more than PGD-20",  # the steps check
        "9007199254740993",  # a seed beyond what a float can tell
        "9223372036854775000",
        "pyautoattack",
        "generated here, not CIFAR-10-C",
        "keeps 94.0 % of its energy",
        "Not run: openvino (it is not installed).",
        "the first layer stays dense",
    ],
)
def test_a_page_says(figure: str) -> None:
    assert figure in read(sample_report()).text


def test_every_digest_is_written_in_full() -> None:
    report = sample_report()
    text = read(report).text
    for digest in (
        report["model"]["weights_sha256"],
        report["dataset"]["content_sha256"],
        report["split_sha256"],
        report["evaluation"]["attacked"]["sha256"],
    ):
        assert digest in text


def test_chance_counts_classes_without_test_images_too() -> None:
    report = sample_report()
    del report["evaluation"]["after"]["per_class"][8]
    assert "chance, 10 %" in read(report).text


def test_timings_that_overlap_are_no_change() -> None:
    report = sample_report()
    timing = report["result"]["after"]["latency_ms"]["batch 1"]
    timing |= {"median_ms": 9.0, "lower_quartile_ms": 2.0, "upper_quartile_ms": 20.0}
    text = read(report).text
    assert text.count("no clear change") == 2  # at a glance, and in the table
    assert "2.90× slower" not in text  # noqa: RUF001


def test_a_plan_of_channels_shows_channels_instead_of_ranks() -> None:
    text = read(sample_report(plan="channels")).text
    assert "11 of 16" in text
    assert "keeps 11 of 16 channels of the group conv1" in text
    assert "Channels kept in each layer" in text


def test_an_undecided_target_says_how_many_examples_would_decide_it() -> None:
    text = read(sample_report(verdict="undecided")).text
    assert "? undecided" in text
    assert "about 18,742 would" in text


def test_an_unreliable_report_says_why() -> None:
    report = sample_report(verdict="unreliable")
    text = read(report).text
    assert "figures unreliable" in text
    assert report["verdict"]["reasons"][0] in text
    assert "✕ failed" in text


def _paths(value: object, path: Path = ()) -> Iterator[Path]:
    """Every place in a report; of a list the first item stands for all."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*path, key)
            yield from _paths(item, (*path, key))
    elif isinstance(value, list) and value:
        yield (*path, 0)
        yield from _paths(value[0], (*path, 0))


def _parent(report: dict[str, Any], path: Path) -> Any:
    for key in path[:-1]:
        report = report[key]  # type: ignore[index]
    return report


def _changed(path: Path, value: object, **kinds: Any) -> dict[str, Any]:
    report = sample_report(**kinds)
    _parent(report, path)[path[-1]] = value
    return report


RANKS = sample_report()
PATHS = list(_paths(RANKS))


@pytest.mark.parametrize("name", sorted(RANKS))
def test_a_report_without_any_one_of_its_parts_still_becomes_a_page(name: str) -> None:
    without = {key: value for key, value in RANKS.items() if key != name}
    assert read(without).elements["h2"] == 9
    assert read(RANKS | {name: None}).elements["h2"] == 9


@settings(max_examples=35, deadline=None)
@given(path=st.sampled_from(PATHS), remove=st.booleans())
def test_a_report_that_lacks_anything_anywhere_still_becomes_a_page(
    path: Path, remove: bool
) -> None:
    report = copy.deepcopy(RANKS)
    if remove:
        del _parent(report, path)[path[-1]]
    else:
        _parent(report, path)[path[-1]] = None
    read(report)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=35, deadline=None)
@given(path=st.sampled_from(PATHS), value=JUNK)
def test_whatever_stands_where_a_value_should_be_a_page_is_written(
    path: Path, value: object
) -> None:
    read(_changed(path, value))


@pytest.mark.parametrize("missing", ["clean", "certified", "planted", "steps", "corruptions"])
def test_what_was_not_run_is_said(missing: str) -> None:
    report = sample_report()
    del report["evaluation"]["after"][missing]
    assert "not run" in read(report).text.lower()


def test_a_reason_for_what_was_not_run_is_said_with_it() -> None:
    report = sample_report()
    certified = {"value": None, "skipped": "no bound for operation aten.erf"}
    report["evaluation"]["after"]["certified"] = certified
    assert "certified accuracy (no bound for operation aten.erf)" in read(report).text


@pytest.mark.parametrize("plan", get_args(Plan))
def test_no_string_of_a_report_becomes_markup(plan: Plan) -> None:
    clean = read(sample_report(plan=plan))
    hostile = read(_with_every_string_hostile(sample_report(plan=plan)))
    assert hostile.elements["script"] == 0
    assert hostile.elements["img"] == 0
    assert set(hostile.elements) <= set(clean.elements) | {"p", "li", "ul"}
    assert {name for _, name, _ in hostile.attributes} <= {name for _, name, _ in clean.attributes}
    assert HOSTILE[:20] in "".join(hostile.texts)


KEPT = {"kind", "norm", "method", "format", "targets", "reliability", "label", "metric", "outcome"}


def _with_every_string_hostile(value: Any, key: str = "") -> Any:
    """Put hostile text into every string that is not one of an enumeration, and into keys."""
    if isinstance(value, dict):
        return {name: _with_every_string_hostile(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_with_every_string_hostile(item, key) for item in value]
    return HOSTILE if isinstance(value, str) and key not in KEPT else value


@pytest.mark.parametrize(
    "path",
    [
        ("evaluation", "after", "corruptions", "kinds"),
        ("latency", "runtimes"),
        ("latency", "skipped"),
        ("epochs",),
        ("profile",),
        ("result", "after", "latency_ms"),
    ],
)
def test_no_key_of_a_report_becomes_markup(path: Path) -> None:
    report = sample_report()
    inside = _parent(report, (*path, ""))
    inside[HOSTILE] = next(iter(inside.values()))
    page = read(report)
    assert page.elements["script"] == page.elements["img"] == 0


def test_characters_that_turn_text_around_are_left_out() -> None:
    report = sample_report()
    report["model"]["name"] = "safe\u202egpj.exe\ud800"
    text = render_html(report)
    assert "\u202e" not in text
    text.encode("utf-8")


def test_a_network_of_many_layers_and_classes_folds_its_long_tables() -> None:
    report = sample_report()
    layer = report["plan"]["layers"][1]
    report["plan"]["layers"] = [layer | {"name": f"block.{n}.conv"} for n in range(160)]
    one = report["evaluation"]["drift"]["classes"][0]
    report["evaluation"]["drift"]["classes"] = [one | {"class": n} for n in range(1000)]
    text = read(report).text
    assert "All 160 layers, each with its reason" in text
    assert "All 1000 classes" in text
    assert "block.159.conv" in text
