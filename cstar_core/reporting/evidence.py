"""Why the figures can be trusted, or why not: reasons, flags and the checks of the evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from cstar_core.reporting import words
from cstar_core.reporting.document import Block, Cell, Items, Note, Section, Table
from cstar_core.reporting.overview import names
from cstar_core.reporting.reading import Part

PASSED = Cell("✓ passed", "good")
FAILED = Cell("✕ failed", "bad")
NOT_RUN = Cell("– not run", "muted")  # noqa: RUF001

Row = tuple[Cell | str, ...]
NOT_PART = "not part of this evaluation"


class Outcome(NamedTuple):
    """What became of a check of one network; None stands for one that was not run."""

    passed: bool | None
    detail: str

    @property
    def cell(self) -> Cell:
        """The outcome with its sign."""
        return NOT_RUN if self.passed is None else PASSED if self.passed else FAILED


Check = dict[str, Outcome]
"""Outcomes by network, `before` and `after`."""


def reliability(report: Part) -> Section:
    """The reasons in words, the flags as data, and each check with its outcome."""
    blocks: list[Block] = [_reasons(report)]
    blocks += _flags(report)
    if warnings := tuple(warning.text() for warning in report.parts("verdict", "warnings")):
        blocks += [Note("Warnings, which do not touch the figures:"), Items(warnings)]
    blocks.append(_table(report))
    return Section("reliability", "Can these figures be trusted?", tuple(blocks))


def _reasons(report: Part) -> Items:
    reasons = tuple(reason.text() for reason in report.parts("verdict", "reasons"))
    otherwise = {
        "reliable": "No flag was raised, and every check that was run has passed.",
        "unreliable": "They cannot; the report does not say why.",
    }
    said = report.text("verdict", "reliability")
    return Items(reasons, otherwise.get(said, "The report does not judge its own figures."))


def _flags(report: Part) -> Iterable[Block]:
    """Signs that a figure may be wrong, as data."""
    named = names(report)
    rows = tuple(
        (
            Cell(flag.text("code") or words.NOTHING, "code"),
            named.get(flag.text("model"), flag.text("model")) or words.NOTHING,
            flag.text("detail") or words.NOTHING,
        )
        for flag in report.parts("verdict", "flags")
    )
    if rows:
        yield Table("Flags", ("flag", "network", "what was seen"), rows, stacked=True)


def _table(report: Part) -> Table:
    """One row per check, with the outcome for each network."""
    named = names(report)
    shown = [when for when in named if report.part("evaluation", when)] or ["after"]
    rows: tuple[Row, ...] = tuple(
        (label, *(_cell(check, when) for when in shown), _details(check, named, shown))
        for label, check in _checks(report, shown)
    )
    columns = ("check", *(named[when] for when in shown), "detail")
    return Table("Checks of the evaluation itself", columns, rows, stacked=True)


def _cell(check: Check, when: str) -> Cell:
    return check[when].cell if when in check else Cell(words.NOTHING, "muted")


def _details(check: Check, named: dict[str, str], shown: list[str]) -> str:
    """What was seen, once where it is the same for both networks."""
    details = {when: check[when].detail for when in shown if when in check}
    if len(set(details.values())) <= 1:
        return next(iter(details.values()), words.NOTHING)
    return "\n".join(f"{named[when]}: {detail}" for when, detail in details.items())


def _checks(report: Part, shown: list[str]) -> Iterable[tuple[str, Check]]:
    assessments = {when: report.part("evaluation", when) for when in shown}
    for label, check in _PER_NETWORK.items():
        yield label, {when: check(assessment) for when, assessment in assessments.items()}
    yield "attacks crafted on the uploaded network are weaker", {"after": _transfer(report)}
    yield from _invariants(report)
    yield "the exported file, in a fresh process, says the same", {"after": _verification(report)}


def _flagged(assessment: Part) -> set[str]:
    return {flag.text("code") for flag in assessment.parts("flags")}


def _planted(assessment: Part) -> Outcome:
    planted = assessment.part("planted")
    if planted.number("n") is None or planted.text("skipped"):
        return Outcome(None, planted.text("skipped") or NOT_PART)
    chance = planted.number("found_by_chance")
    by_chance = "" if chance is None else f"; random sampling found {words.count(chance)}"
    detail = (
        f"{words.count(planted.number('found'))} of {words.count(planted.number('n'))} found, "
        f"{words.percent(planted.number('required'), digits=0)} required{by_chance}"
    )
    return Outcome(planted.truth("passed"), detail)


def _steps(assessment: Part) -> Outcome:
    steps = assessment.part("steps")
    broken = steps.number("broken_more")
    if broken is None:
        return Outcome(None, steps.text("skipped") or NOT_PART)
    detail = (
        f"{_named(steps.part('many'))} broke {words.count(broken)} of "
        f"{words.count(steps.number('n'))} images more than {_named(steps.part('few'))}"
    )
    return Outcome("more_steps_much_stronger" not in _flagged(assessment), detail)


def _named(attack: Part) -> str:
    """An attack by its name, or by the number of its steps."""
    return words.name(attack.text()) if attack.text() else f"{words.plain(attack)} steps"


def _curve(assessment: Part) -> Outcome:
    curve = assessment.parts("curve")
    if not curve:
        return Outcome(None, NOT_PART)
    value, epsilon = curve[-1].number("value"), curve[-1].number("epsilon")
    detail = f"{words.percent(value)} at epsilon {words.epsilon(epsilon)}"
    failing = {"larger_epsilon_not_stronger", "not_broken_at_large_epsilon"}
    return Outcome(not _flagged(assessment) & failing, detail)


def _square(assessment: Part) -> Outcome:
    broken = assessment.number("autoattack", "broken_by", "square")
    if broken is None:
        return Outcome(None, NOT_PART)
    n = words.count(assessment.number("autoattack", "n"))
    detail = f"Square broke {words.count(broken)} of {n} images after all the others"
    return Outcome("square_stronger" not in _flagged(assessment), detail)


def _consistency(assessment: Part) -> Outcome:
    pgd, suite = (assessment.number(key, "value") for key in ("pgd", "autoattack"))
    if pgd is None or suite is None:
        return Outcome(None, NOT_PART)
    detail = f"AutoAttack {words.percent(suite)}, PGD {words.percent(pgd)}"
    return Outcome("autoattack_weaker_than_pgd" not in _flagged(assessment), detail)


_PER_NETWORK: dict[str, Callable[[Part], Outcome]] = {
    "a planted adversarial example is found": _planted,
    "more steps do not break much more": _steps,
    "accuracy falls to chance as epsilon grows": _curve,
    "AutoAttack breaks what PGD breaks": _consistency,
    "no black-box attack beats the white-box ones": _square,
}


def _transfer(report: Part) -> Outcome:
    transfer = report.part("evaluation", "transfer")
    if transfer.number("value") is None:
        reason = transfer.text("skipped") or "there is no second network to craft them on"
        return Outcome(None, reason)
    flagged = _flagged(report.part("evaluation", "after")) | _flagged(report.part("verdict"))
    detail = f"{words.accuracy(transfer)} of {words.count(transfer.number('n'))} stay correct"
    return Outcome("transfer_stronger" not in flagged, detail)


def _invariants(report: Part) -> Iterable[tuple[str, Check]]:
    """Those of one name in one row."""
    found: dict[str, Check] = {}
    for invariant in report.parts("verdict", "invariants"):
        outcome = Outcome(invariant.truth("holds"), invariant.text("detail") or words.NOTHING)
        found.setdefault(invariant.text("name"), {})[invariant.text("model")] = outcome
    for name, check in found.items():
        yield name or words.NOTHING, check


def _verification(report: Part) -> Outcome:
    differing = report.number("verification", "disagreements")
    if differing is None:
        return Outcome(None, "nothing was exported")
    n = report.number("verification", "n")
    of = "" if n is None else f" of {words.count(n)}"
    return Outcome(True, f"{words.count(differing)}{of} predictions differ")
