"""What an expert looks at next: classes that changed, corrupted images, spectra of the weights."""

from __future__ import annotations

from collections.abc import Iterable

from cstar_core.reporting import words
from cstar_core.reporting.document import Block, Cell, Folded, Note, Section, Table
from cstar_core.reporting.overview import names
from cstar_core.reporting.reading import Part

Row = tuple[Cell | str, ...]
OPEN_UP_TO = 20  # classes: a longer table is folded
MOST_LAYERS = 200


def drift(report: Part) -> Section:
    """Which classes changed and how often both networks agree; per class where there is one."""
    found = report.part("evaluation", "drift")
    blocks = [*_drift(found, names(report))] if found else [*_per_class(report)]
    blocks += _spectra(report.part("evaluation", "spectra"))
    return Section("drift", "What changed, class by class", tuple(blocks))


def _drift(found: Part, named: dict[str, str]) -> Iterable[Block]:
    agreement = found.number("agreement")
    if agreement is not None:
        yield Note(
            f"Both networks predict the same class for {words.percent(agreement)} of "
            f"{words.count(found.number('n'))} test images{_both_wrong(found)}."
        )
    yield from _most_changed(found)
    caption = "Accuracy of each class; lost: images that only the first network gets right"
    rows = tuple(_class_row(one) for one in found.parts("classes"))
    columns = (
        "class",
        "n",
        named["before"],
        named["after"],
        "change",
        "lost",
        "gained",
        "McNemar",
    )
    yield from _classes(Table(caption, columns, rows, (1, 2, 3, 4, 5, 6, 7)))
    yield from _limits(found)


def _both_wrong(found: Part) -> str:
    share = found.number("agreement_when_both_wrong")
    return "" if share is None else f"; where both are wrong, for {words.percent(share)}"


def _most_changed(found: Part) -> Iterable[Block]:
    known = {words.plain(one.part("class")): _class_name(one) for one in found.parts("classes")}
    numbers = [words.plain(one) for one in found.parts("most_changed")]
    if numbers:
        yield Note(f"Most changed: {', '.join(known.get(one, one) for one in numbers)}.")
    for flag in found.parts("flags"):
        yield Note(f"! {flag.text('detail') or flag.text('code')}", "warn")


def _class_row(one: Part) -> Row:
    return (
        _class_name(one),
        words.count(one.number("n")),
        words.percent(one.number("before")),
        words.percent(one.number("after")),
        words.points(one.number("difference")),
        words.count(one.number("only_before")),
        words.count(one.number("only_after")),
        words.p_value(one.number("mcnemar_p")) or words.NOTHING,
    )


def _class_name(one: Part) -> str:
    number = words.plain(one.part("class"))
    return f"{number}: {one.text('name')}" if one.text("name") else number


def _per_class(report: Part) -> Iterable[Block]:
    """The accuracy of each class of the one network there is."""
    yield Note("Not run: drift (it needs two networks).", "muted")
    rows = tuple(
        (_class_name(one), words.count(one.number("n")), words.percent(one.number("value")))
        for one in report.parts("evaluation", "after", "per_class")
    )
    yield from _classes(Table("Accuracy of each class", ("class", "n", "accuracy"), rows, (1, 2)))


def _classes(table: Table) -> Iterable[Block]:
    if not table.rows:
        yield Note("Not run: accuracy of each class.", "muted")
    elif len(table.rows) > OPEN_UP_TO:
        yield Folded(f"All {len(table.rows)} classes", (table,))
    else:
        yield table


def _limits(found: Part) -> Iterable[Block]:
    yield from (Note(limit.text(), "muted") for limit in found.parts("limits"))


def _spectra(found: Part) -> Iterable[Block]:
    if not found:
        yield Note("Not run: the screen of the uploaded weights.", "muted")
        return
    flags = len(found.parts("flags"))
    outcome = f"raised {flags} flag{'s' * (flags != 1)}" if flags else "raised no flag"
    yield Note(f"The screen of the uploaded weights for signs of a backdoor {outcome}.")
    rows = tuple(_spectrum_row(layer) for layer in found.parts("layers")[:MOST_LAYERS])
    columns = ("layer", "top singular value", "median", "largest channel", "its score")
    table = Table("Singular values of the uploaded weights", columns, rows, (1, 2, 3, 4))
    yield Folded("The screen, layer by layer", (table, *_limits(found)))


def _spectrum_row(layer: Part) -> Row:
    return (
        Cell(layer.text("name") or words.NOTHING, "code"),
        words.decimal(layer.number("top_singular_value")),
        words.decimal(layer.number("median_singular_value")),
        words.plain(layer.part("largest_channel")),
        words.decimal(layer.number("channel_score")),
    )


def corruptions(report: Part) -> Section:
    """Accuracy by kind and severity, deeper colours for what is lost."""
    after = report.part("evaluation", "after", "corruptions")
    before = report.part("evaluation", "before", "corruptions")
    if not after.part("kinds"):
        reason = after.text("skipped") or "not part of this evaluation"
        blocks: tuple[Block, ...] = (Note(f"Not run: corrupted images ({reason}).", "muted"),)
        return Section("corruptions", "Corrupted images", blocks)
    named = names(report)
    old = before.number("mean")
    compared = "" if old is None else f" against {words.percent(old)} {named['before']}"
    intro = Note(
        f"{words.count(after.number('n'))} test images, corrupted in every way and severity "
        f"({after.text('named') or 'not named'}): mean accuracy "
        f"{words.percent(after.number('mean'))}{compared}."
    )
    left_out = "; ".join(
        f"{words.name(kind)} ({reason.text()})" for kind, reason in after.members("left_out")
    )
    missing = (Note(f"Not run: {left_out}.", "muted"),) if left_out else ()
    blocks = (intro, _heat(before, after, named), *missing)
    return Section("corruptions", "Corrupted images", blocks)


def _heat(before: Part, after: Part, named: dict[str, str]) -> Table:
    severities = max(len(values.parts()) for _, values in after.members("kinds"))
    rows = tuple(
        _heat_row(kind, values.numbers(), before.numbers("kinds", kind), severities)
        for kind, values in after.members("kinds")
    )
    columns = ["corruption", *(f"severity {n}" for n in range(1, severities + 1)), "mean"]
    if before.part("kinds"):
        columns.append(f"mean, {named['before']}")
    else:
        rows = tuple(row[:-1] for row in rows)
    caption = f"Accuracy of the {named['after']} network in percent"
    return Table(caption, tuple(columns), rows, tuple(range(1, len(columns))))


def _heat_row(
    kind: str, after: tuple[float | None, ...], before: tuple[float | None, ...], severities: int
) -> Row:
    padded = [*after, *[None] * (severities - len(after))]
    return words.name(kind), *(_heat_cell(v) for v in padded), _mean(after), _mean(before)


def _heat_cell(value: float | None) -> Cell:
    if value is None:
        return Cell(words.NOTHING)
    return Cell(f"{100 * value:.1f}", f"heat-{min(9, max(0, int(10 * value)))}")


def _mean(values: tuple[float | None, ...]) -> str:
    known = [value for value in values if value is not None]
    return f"{100 * sum(known) / len(known):.1f}" if known else words.NOTHING
