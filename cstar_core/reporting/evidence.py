"""Why the figures can be trusted, or why not: reasons, flags and the checks of the evaluation."""

from __future__ import annotations

from collections.abc import Iterable

from cstar_core.reporting import words
from cstar_core.reporting.document import Block, Cell, Items, Section, Table
from cstar_core.reporting.overview import names
from cstar_core.reporting.reading import Part

PASSED = Cell("✓ passed", "good")
FAILED = Cell("✕ failed", "bad")
NOT_RUN = Cell("– not run", "muted")  # noqa: RUF001

Row = tuple[Cell | str, ...]


def reliability(report: Part) -> Section:
    """The reasons in words, the flags as data, and each check with its outcome."""
    blocks: list[Block] = [_reasons(report)]
    blocks += _flags(report)
    blocks.append(_checks(report))
    return Section("reliability", "Can these figures be trusted?", tuple(blocks))


def _reasons(report: Part) -> Items:
    reasons = tuple(reason.text() for reason in report.parts("verdict", "reasons"))
    if report.text("verdict", "reliability") == "reliable":
        otherwise = "Every check below that was run has passed and no flag was raised."
    else:
        otherwise = "The report does not say why."
    return Items(reasons, otherwise)


def _flags(report: Part) -> Iterable[Block]:
    """Signs that a figure may be wrong."""
    named = names(report)
    rows = tuple(
        (
            Cell(flag.text("code") or words.NOTHING, "code"),
            named.get(flag.text("model"), flag.text("model")) or words.NOTHING,
            flag.text("detail") or words.NOTHING,
        )
        for flag in _all_flags(report)
    )
    if rows:
        yield Table("Flags", ("flag", "network", "what was seen"), rows, stacked=True)


def _all_flags(report: Part) -> tuple[Part, ...]:
    """Those of the verdict, and those of drift and spectra, which have lists of their own."""
    evaluation = report.part("evaluation")
    return (
        *report.parts("verdict", "flags"),
        *evaluation.parts("drift", "flags"),
        *evaluation.parts("spectra", "flags"),
    )


def _checks(report: Part) -> Table:
    rows: list[Row] = []
    for when in ("before", "after"):
        assessment = report.part("evaluation", when)
        if assessment:
            rows += _checks_of(report, when, assessment)
    rows += [_transfer(report), *_invariants(report), _verification(report)]
    columns = ("check", "network", "outcome", "detail")
    return Table("Checks of the evaluation itself", columns, tuple(rows), stacked=True)


def _checks_of(report: Part, when: str, assessment: Part) -> Iterable[Row]:
    network = names(report)[when]
    codes = {flag.text("code") for flag in assessment.parts("flags")}
    yield "a planted adversarial example is found", network, *_planted(assessment.part("planted"))
    yield "more steps do not break much more", network, *_steps(assessment.part("steps"), codes)
    yield "accuracy falls to chance as epsilon grows", network, *_curve(assessment, codes)
    yield "no black-box attack beats the white-box ones", network, *_square(assessment, codes)


def _outcome(passed: bool | None) -> Cell:
    return NOT_RUN if passed is None else PASSED if passed else FAILED


def _planted(planted: Part) -> tuple[Cell, str]:
    if reason := planted.text("skipped"):
        return NOT_RUN, reason
    if not planted or planted.number("n") is None:
        return NOT_RUN, "not part of this evaluation"
    chance = planted.number("found_by_chance")
    by_chance = "" if chance is None else f"; random sampling found {words.plain(_of(chance))}"
    detail = (
        f"{words.count(planted.number('found'))} of {words.count(planted.number('n'))} found, "
        f"{words.percent(planted.number('required'), digits=0)} required{by_chance}"
    )
    return _outcome(planted.truth("passed")), detail


def _of(value: float) -> Part:
    return Part(int(value) if value == int(value) else value)


def _steps(steps: Part, codes: set[str]) -> tuple[Cell, str]:
    broken = steps.number("broken_more")
    if broken is None:
        return NOT_RUN, steps.text("skipped") or "not part of this evaluation"
    detail = (
        f"{words.plain(steps.part('few'))} against {words.plain(steps.part('many'))}: "
        f"{words.count(broken)} of {words.count(steps.number('n'))} images more were broken"
    )
    return _outcome("more_steps_much_stronger" not in codes), detail


def _curve(assessment: Part, codes: set[str]) -> tuple[Cell, str]:
    curve = assessment.parts("curve")
    if not curve:
        return NOT_RUN, "not part of this evaluation"
    last = curve[-1]
    detail = (
        f"{words.percent(last.number('value'))} at epsilon {words.epsilon(last.number('epsilon'))}"
    )
    failing = {"larger_epsilon_not_stronger", "not_broken_at_large_epsilon"}
    return _outcome(not codes & failing), detail


def _square(assessment: Part, codes: set[str]) -> tuple[Cell, str]:
    broken = assessment.number("autoattack", "broken_by", "square")
    if broken is None:
        return NOT_RUN, "AutoAttack's Square was not part of this evaluation"
    n = words.count(assessment.number("autoattack", "n"))
    detail = f"Square broke {words.count(broken)} of {n} images after all the others"
    return _outcome("square_stronger" not in codes), detail


def _transfer(report: Part) -> Row:
    label, transfer = (
        "attacks crafted on the uploaded network are weaker",
        report.part("evaluation", "transfer"),
    )
    network = names(report)["after"]
    if transfer.number("value") is None:
        reason = transfer.text("skipped") or "there is no second network to craft them on"
        return label, network, NOT_RUN, reason
    codes = {flag.text("code") for flag in report.parts("verdict", "flags")}
    codes |= {flag.text("code") for flag in report.parts("evaluation", "after", "flags")}
    detail = f"{words.accuracy(transfer)} of n = {words.count(transfer.number('n'))} stay correct"
    return label, network, _outcome("transfer_stronger" not in codes), detail


def _invariants(report: Part) -> Iterable[Row]:
    named = names(report)
    for invariant in report.parts("verdict", "invariants"):
        model = invariant.text("model")
        yield (
            invariant.text("name") or words.NOTHING,
            named.get(model, model) or words.NOTHING,
            _outcome(invariant.truth("holds")),
            invariant.text("detail") or "on every example",
        )


def _verification(report: Part) -> Row:
    label = "the exported file, in a fresh process, says the same"
    network, verification = names(report)["after"], report.part("verification")
    differing = verification.number("disagreements")
    if differing is None:
        return label, network, NOT_RUN, "nothing was exported"
    return label, network, _outcome(True), f"{words.count(differing)} predictions differ"
