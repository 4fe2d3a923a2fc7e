"""`report.schema.json`: what it lets pass and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator

from cstar_core.reporting import SCHEMA_PATH
from tests.support.reports import Kind, Plan, Verdict, sample_report

SCHEMA = json.loads(SCHEMA_PATH.read_text("utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)
Report = dict[str, Any]


def test_it_is_a_schema_of_the_version_it_names() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$id"] == "urn:cstar:report:2"
    assert SCHEMA["properties"]["version"] == {"const": 2}


@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize("verdict", get_args(Verdict))
@pytest.mark.parametrize("plan", get_args(Plan))
def test_every_sample_is_valid(kind: Kind, verdict: Verdict, plan: Plan) -> None:
    VALIDATOR.validate(sample_report(kind=kind, verdict=verdict, plan=plan))


@pytest.mark.parametrize("name", sorted(SCHEMA["required"]))
def test_a_report_without_a_required_part_is_refused(name: str) -> None:
    report = sample_report()
    del report[name]
    assert not VALIDATOR.is_valid(report)


def _set(*path: str | int, to: object) -> Callable[[Report], None]:
    def change(report: Report) -> None:
        value: Any = report
        for key in path[:-1]:
            value = value[key]
        value[path[-1]] = to

    return change


REFUSED = {
    "another version": _set("version", to=1),
    "an accuracy in percent": _set("evaluation", "after", "clean", "value", to=81.0),
    "an interval of three ends": _set("evaluation", "after", "pgd", "interval", to=[0, 0.5, 1]),
    "an interval beyond 1": _set("evaluation", "after", "pgd", "interval", to=[0.5, 1.1]),
    "an unknown verdict": _set("verdict", "reliability", to="perhaps"),
    "an empty headline": _set("verdict", "headline", to=""),
    "an accuracy target without interval": _set("result", "targets", 1, "interval", to=None),
    "an interval for a size": _set("result", "targets", 0, "interval", to=[0.1, 0.2]),
    "an unknown norm": _set("threat_model", "norm", to="l7"),
    "a digest that is none": _set("model", "weights_sha256", to="abc"),
    "four severities": _set("evaluation", "after", "corruptions", "kinds", "jpeg", to=[0.5] * 4),
    "a compression without its plan": _set("plan", to=None),
    "a compression without before": _set("evaluation", "before", to=None),
    "a rank of 0": _set("plan", "layers", 1, "ranks", to=[0, 3]),
    "a negative latency": _set(
        "latency", "runtimes", "torch", "after", "batch 1", "median_ms", to=-1.0
    ),
}


@pytest.mark.parametrize("change", REFUSED.values(), ids=REFUSED.keys())
def test_it_refuses(change: Callable[[Report], None]) -> None:
    report = sample_report()
    change(report)
    assert not VALIDATOR.is_valid(report)


def test_unreliable_figures_need_a_reason() -> None:
    report = sample_report(verdict="unreliable")
    report["verdict"]["reasons"] = []
    assert not VALIDATOR.is_valid(report)


def test_a_certification_that_was_skipped_needs_no_figure() -> None:
    report = sample_report()
    skipped = {"name": "certified", "method": "interval bounds", "skipped": "unknown operation"}
    report["evaluation"]["after"]["certified"] = skipped | {"value": None, "n": None}
    VALIDATOR.validate(report)


@pytest.mark.parametrize("where", ["profile", "execution", "phases", "verdict", "evaluation"])
def test_what_a_later_release_adds_is_let_pass(where: str) -> None:
    report = sample_report()
    report[where]["added_later"] = {"anything": [1, 2.5, None]}
    VALIDATOR.validate(report)
