"""The first screen: the verdict, the figures at a glance, targets, before and after."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from cstar_core.reporting import words
from cstar_core.reporting.document import Badge, Block, Cell, Note, Section, Table, Tile, Tone
from cstar_core.reporting.reading import Part

_TARGETS = {
    "met": Badge("✓", "targets met", "good"),
    "missed": Badge("✕", "targets missed", "bad"),
    "undecided": Badge("?", "targets undecided: too few examples", "warn"),
    "none": Badge("–", "no targets asked", "muted"),  # noqa: RUF001
}
_RELIABILITY = {
    "reliable": Badge("✓", "figures reliable", "good"),
    "unreliable": Badge("!", "figures unreliable", "bad"),
}
_LABELS = {
    "screening": Badge("≈", "screening, not a result", "warn"),
    "result": Badge("✓", "enough examples for a result", "good"),
}
_MET = Cell("✓ met", "good")
_MISSED = Cell("✕ missed", "bad")
_UNDECIDED = Cell("? undecided", "warn")


def names(report: Part) -> dict[str, str]:
    """What the two networks are called."""
    if report.text("kind") == "evaluation":
        return {"before": "baseline", "after": "evaluated"}
    return {"before": "uploaded", "after": "compressed"}


def has_baseline(report: Part) -> bool:
    """Whether there is anything to compare with."""
    return bool(report.part("evaluation", "before") or report.part("result", "before"))


def badges(report: Part) -> tuple[Badge, ...]:
    """Targets, reliability, label, warnings; what the report does not say is left out."""
    verdict = report.part("verdict")
    warnings = len(verdict.parts("warnings"))
    found = (
        _TARGETS.get(verdict.text("targets")),
        _RELIABILITY.get(verdict.text("reliability")),
        _LABELS.get(verdict.text("label")),
        Badge("!", f"{warnings} warning{'s' * (warnings > 1)}", "warn") if warnings else None,
    )
    return tuple(badge for badge in found if badge)


def tone(report: Part) -> Tone:
    """The worst of the badges."""
    tones = {badge.tone for badge in badges(report)}
    return next((worst for worst in ("bad", "warn", "good") if worst in tones), "muted")


def tiles(report: Part) -> tuple[Tile, ...]:
    """Size, clean and robust accuracy, speed: what a product owner asks for."""
    sizes, speed = _size_tile(report), _speed_tile(report)
    accuracies = [_accuracy_tile(report, "clean"), _accuracy_tile(report, "autoattack")]
    if report.text("kind") == "evaluation":
        accuracies.append(_accuracy_tile(report, "certified"))
    return tuple(tile for tile in (sizes, *accuracies, speed) if tile)


def _size_tile(report: Part) -> Tile | None:
    before, after = (report.number("result", when, "parameters") for when in names(report))
    if before is None or after is None:
        return None
    detail = f"{words.count(before)} to {words.count(after)} parameters"
    return Tile("size", words.change(before, after), detail)


def _speed_tile(report: Part) -> Tile | None:
    said = report.text("latency", "words")
    old, new = (report.part("result", when, "latency_ms", "batch 1") for when in names(report))
    before, after = old.number("median_ms"), new.number("median_ms")
    if after is None:
        return Tile("speed", said, "") if said else None
    label = "speed, one image in PyTorch"
    if before is None:
        return Tile(label, words.milliseconds(after), said)
    figure = _speed_change(old, new)
    detail = f"{words.milliseconds(before)} to {words.milliseconds(after)}"
    return Tile(label, figure, f"{detail}\n{said}" if said else detail)


def _accuracy_tile(report: Part, piece: str) -> Tile | None:
    figure = report.part("evaluation", "after", piece)
    if figure.number("value") is None:
        return None
    label = {"clean": "clean accuracy", "certified": "certified accuracy"}.get(
        piece, f"robust accuracy ({words.name(figure.text('name') or piece)})"
    )
    ends = words.interval(figure.interval("interval"))
    detail = f"{ends}, n{words.TIED}={words.TIED}{words.count(figure.number('n'))}"
    before = report.part("evaluation", "before", piece)
    if before.number("value") is not None:
        detail += f"\n{names(report)['before']}: {words.percent(before.number('value'))}"
    return Tile(label, words.percent(figure.number("value")), detail)


def targets(report: Part) -> Section:
    """What was asked for and what became of it."""
    rows = tuple(_target_row(target) for target in report.parts("result", "targets"))
    columns = ("target", "asked", "achieved", "95 % interval", "outcome", "remark")
    table = Table(
        "What was asked for, and what was measured", columns, rows, numeric=(1, 2, 3), stacked=True
    )
    rule = Note(
        "An accuracy is met only when the lower end of its 95 % interval reaches what was asked.",
        "muted",
    )
    blocks: tuple[Block, ...] = (table, rule)
    return Section("targets", "Targets", blocks if rows else (Note("No targets were asked."),))


def _target_row(target: Part) -> tuple[Cell | str, ...]:
    metric = target.text("metric")
    write = _writer(metric)
    return (
        words.name(metric) or words.NOTHING,
        write(target.number("requested")),
        write(target.number("achieved")),
        words.interval(target.interval("interval"), digits=2) or "exact",
        _outcome(target),
        target.text("note") or _examples_needed(target),
    )


def _outcome(target: Part) -> Cell:
    said = target.text("outcome")
    if said == "met":
        return _MET
    if target.truth("undecided"):
        return _UNDECIDED
    return _MISSED if said == "missed" else Cell(said or words.NOTHING)


def _examples_needed(target: Part) -> str:
    needed = target.number("examples_needed")
    return words.NOTHING if needed is None else f"about {words.count(needed)} examples decide it"


def _writer(metric: str) -> Callable[[float | None], str]:
    """How values of this metric are written."""
    if metric.endswith("accuracy"):
        return lambda value: words.percent(value, digits=2)
    if metric.endswith("latency_ms"):
        return words.milliseconds
    return words.decimal if metric.endswith("ratio") else words.count


class Measure(NamedTuple):
    """A row of the comparison by its key in an assessment."""

    key: str
    label: str


_MEASURES = (
    Measure("clean", "clean accuracy"),
    Measure("pgd", "robust accuracy, PGD"),
    Measure("autoattack", "robust accuracy, AutoAttack"),
    Measure("worst_case", "robust accuracy, worst case of all attacks"),
    Measure("certified", "certified accuracy"),
    Measure("through_jpeg", "robust accuracy, attacked through JPEG"),
)


def comparison(report: Part) -> Section:
    """Every figure of both networks, with intervals, and what was not measured."""
    both = has_baseline(report)
    named = names(report)
    rows = [*_size_rows(report), *_accuracy_rows(report), *_corruption_rows(report)]
    columns = ("", named["before"], named["after"], "change", "n")
    caption = "Sizes, speed, and accuracies under the same attacks on the same examples"
    table = Table(caption, columns, tuple(rows), numeric=(1, 2, 3, 4))
    if not both:
        rows = [(row[0], row[2], row[4]) for row in rows]
        table = Table(
            "Size, speed and accuracies", ("", named["after"], "n"), tuple(rows), numeric=(1, 2)
        )
    blocks: list[Block] = [table] if rows else []
    blocks += [_explanation(compared=both)] if rows else []
    if missing := "; ".join(_not_run(report)):
        blocks.append(Note(f"Not run: {missing}.", "muted"))
    blocks += _latency(report)
    return Section("figures", "Before and after" if both else "Figures", tuple(blocks))


def _explanation(*, compared: bool) -> Note:
    tested = (
        " p: the exact McNemar test on the same examples; small when chance alone hardly explains "
        "the change."
    )
    return Note(
        "In brackets: the 95 % Wilson interval, in percent."
        + tested * compared
        + " Fewer than 1,000 examples are a screening, not a result.",
        "muted",
    )


def _size_rows(report: Part) -> Iterable[tuple[Cell | str, ...]]:
    before, after = report.part("result", "before"), report.part("result", "after")
    for key, label, write in (
        ("parameters", "parameters", words.count),
        ("macs", "multiply-accumulates per image", words.count),
        ("bytes", "weights in the file", words.size),
    ):
        old, new = before.number(key), after.number(key)
        if new is not None:
            yield label, write(old), write(new), words.change(old, new), "exact"
    for batch, timing in after.members("latency_ms"):
        old, new = before.number("latency_ms", batch, "median_ms"), timing.number("median_ms")
        change = _speed_change(before.part("latency_ms", batch), timing)
        repeats = words.count(timing.number("repeats"))
        label = f"latency, {batch}"
        yield label, words.milliseconds(old), words.milliseconds(new), change, f"{repeats} runs"


def _accuracy_rows(report: Part) -> Iterable[tuple[Cell | str, ...]]:
    evaluation = report.part("evaluation")
    for measure in _MEASURES:
        before, after = (evaluation.part(when, measure.key) for when in ("before", "after"))
        if after.number("value") is None:
            continue
        paired = evaluation.part("paired", measure.key)
        yield (
            _label(measure, after),
            words.accuracy(before),
            words.accuracy(after),
            _change(before, after, paired),
            _examples(after),
        )


def _label(measure: Measure, figure: Part) -> str:
    """The name of the row, with what was really run where that is not in it already."""
    if measure.key == "pgd" and figure.text("name"):
        return f"robust accuracy, {words.name(figure.text('name'))}"
    if measure.key == "autoattack":
        suite = figure.text("name")
        return f"robust accuracy, {words.name(suite)}" if suite else measure.label
    quality = figure.number("quality")
    if measure.key == "through_jpeg" and quality is not None:
        return f"{measure.label} (quality {words.decimal(quality)})"
    return measure.label


def _change(before: Part, after: Part, paired: Part) -> str:
    difference = paired.number("difference")
    if difference is None:
        old, new = before.number("value"), after.number("value")
        difference = None if old is None or new is None else new - old
    tested = words.p_value(paired.number("mcnemar_p"))
    return ", ".join(part for part in (words.points(difference), tested) if part)


def _examples(figure: Part) -> str:
    label = figure.text("label")
    return words.count(figure.number("n")) + (f", {label}" if label else "")


def _corruption_rows(report: Part) -> Iterable[tuple[Cell | str, ...]]:
    before, after = (report.part("evaluation", when, "corruptions") for when in names(report))
    old, new = before.number("mean"), after.number("mean")
    if new is not None:
        difference = None if old is None else new - old
        yield (
            "accuracy on corrupted images, mean",
            words.percent(old),
            words.percent(new),
            words.points(difference),
            words.count(after.number("n")),
        )


def _not_run(report: Part) -> Iterable[str]:
    """What the comparison lacks, with the reason where the report has one."""
    after = report.part("evaluation", "after")
    for measure in _MEASURES:
        figure = after.part(measure.key)
        if figure.number("value") is None:
            yield _with_reason(measure.label, figure)
    if after.number("corruptions", "mean") is None:
        yield _with_reason("accuracy on corrupted images", after.part("corruptions"))
    if not report.part("latency", "runtimes") and not report.part("result", "after", "latency_ms"):
        yield "latency"


def _with_reason(label: str, figure: Part) -> str:
    reason = figure.text("skipped").rstrip(".")
    return f"{label} ({reason})" if reason else label


def _latency(report: Part) -> Iterable[Block]:
    """Every runtime and batch size, with quartiles."""
    latency, named = report.part("latency"), names(report)
    rows = [
        row
        for runtime, timings in latency.members("runtimes")
        for row in _runtime_rows(runtime, timings)
    ]
    if rows:
        device = latency.text("device") or "the device of the job"
        caption = f"Latency on {device}: median [quartiles]"
        columns = ("runtime", named["before"], named["after"], "change")
        if has_baseline(report):
            yield Table(caption, columns, tuple(rows), numeric=(1, 2, 3))
        else:
            alone = tuple((row[0], row[2]) for row in rows)
            yield Table(caption, (columns[0], columns[2]), alone, numeric=(1,))
    if said := latency.text("words"):
        yield Note(f"In words: {said}.")
    for runtime, reason in latency.members("skipped"):
        yield Note(f"Not run: {runtime} ({reason.text().rstrip('.')}).", "muted")


def _runtime_rows(runtime: str, timings: Part) -> Iterable[tuple[Cell | str, ...]]:
    for batch, after in timings.members("after"):
        before = timings.part("before", batch)
        change = _speed_change(before, after)
        yield f"{runtime}, {batch}", _timing(before), _timing(after), change


def _speed_change(before: Part, after: Part) -> str:
    """How much faster, where the middle halves of the timings do not overlap."""
    old, new = _quartiles(before), _quartiles(after)
    if old and new and max(old[0], new[0]) <= min(old[1], new[1]):
        return "no clear change"
    return words.change(
        before.number("median_ms"), after.number("median_ms"), less="faster", more="slower"
    )


def _quartiles(timing: Part) -> tuple[float, float] | None:
    low, high = timing.number("lower_quartile_ms"), timing.number("upper_quartile_ms")
    return None if low is None or high is None else (low, high)


def _timing(timing: Part) -> str:
    median, quartiles = words.milliseconds(timing.number("median_ms")), _quartiles(timing)
    if quartiles is None:
        return median
    return f"{median} [{quartiles[0]:.2f},{words.TIED}{quartiles[1]:.2f}]"
