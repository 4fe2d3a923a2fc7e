"""The figures of a report: which data go into which chart, in words for those who do not see it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from cstar_core.reporting import svg, words
from cstar_core.reporting.charts import (
    BAR,
    LEFT,
    RIGHT,
    WIDTH,
    Axis,
    Bar,
    Labelled,
    Panel,
    Point,
    Rule,
    Series,
    axis_over,
    bars,
    labelled_points,
    legend,
    legend_height,
    panel,
)
from cstar_core.reporting.document import Block, Cell, Figure, Note, Section, Table
from cstar_core.reporting.layers import keeps_channels, layer_shares
from cstar_core.reporting.overview import names
from cstar_core.reporting.reading import Part

FEW_EPOCHS = 20  # that many are drawn as dots as well
ROWS_A_COLUMN = 20  # of the rank allocation, before it goes on beside
_END = WIDTH - RIGHT


def plots(report: Part) -> Section:
    """All charts; what there is no data for is said in one line."""
    drawn: list[Block] = []
    for title, figure in (
        ("accuracy over epsilon", epsilon_curve(report)),
        ("candidates", candidates(report)),
        ("training curves", training(report)),
        ("rank allocation", allocation(report)),
    ):
        drawn.append(figure or Note(f"Not drawn: {title} (not in this report).", "muted"))
    return Section("plots", "Plots", tuple(drawn))


# Accuracy over epsilon ---------------------------------------------------------------------------


def epsilon_curve(report: Part) -> Figure | None:
    """PGD accuracy over epsilon, before and after, with intervals, chance and the target."""
    named = names(report)
    series = [
        Series(named[when], when, points)
        for when in ("before", "after")
        if (points := _curve(report, when))
    ]
    if not series:
        return None
    epsilons = sorted({point.x for one in series for point in one.points})
    norm = report.text("threat_model", "norm")
    top = legend_height(series) + 26
    x = Axis(
        0,
        max(epsilons) or 1.0,
        LEFT,
        _END,
        "root",
        f"epsilon, {words.name(norm)} (square-root scale)",
        _epsilon_writer(report),
        tuple(epsilons),
    )
    y = Axis(0, 1, top + 170, top, label="accuracy under PGD", write=_percent)
    drawn = panel(Panel(x, y, tuple(series), tuple(_curve_rules(report, x))))
    caption = "Accuracy over epsilon, with 95 % intervals"
    drawing = svg.drawing(
        legend(series, 10),
        drawn,
        width=WIDTH,
        height=top + 206,
        key="epsilon-curve",
        title=caption,
        description=_curve_in_words(series, norm),
    )
    return Figure(caption, (drawing,), _curve_table(series, norm))


def _curve(report: Part, when: str) -> tuple[Point, ...]:
    points = []
    for point in report.parts("evaluation", when, "curve"):
        x, y = point.number("epsilon"), point.number("value")
        if x is not None and y is not None:
            low, high = point.interval("interval") or (None, None)
            points.append(Point(x, y, low, high))
    return tuple(sorted(points, key=lambda point: point.x))


def _curve_rules(report: Part, x: Axis) -> Iterable[Rule]:
    classes = class_count(report)
    if classes:
        yield Rule("y", 1 / classes, f"chance, {words.percent(1 / classes, digits=0)}")
    target = report.number("threat_model", "epsilon")
    if target is not None and x.low < target <= x.high:
        yield Rule("x", target, f"target {x.write(target)}")


def class_count(report: Part) -> int:
    """How many classes the network tells apart, 0 where the report does not say.

    Of classes without test images `per_class` knows nothing, so the attack's word goes first.
    """
    for when in ("after", "before"):
        assessment = report.part("evaluation", when)
        named = [one.whole("class") or 0 for one in assessment.parts("per_class")]
        said = assessment.whole("autoattack", "settings", "classes") or 0
        if (classes := max([said, *(number + 1 for number in named)])) > 0:
            return classes
    return 0


def _epsilon_writer(report: Part) -> Callable[[float], str]:
    """Write epsilons in levels of 255 where the target is meant so, else as decimals."""
    target = report.number("threat_model", "epsilon")
    linf = report.text("threat_model", "norm") == "linf"
    if target is None or not linf or not words.grey_levels(target):
        return "{:.3g}".format
    return lambda value: f"{255 * value:.3g}/255" if value else "0"


def _curve_in_words(series: Sequence[Series], norm: str) -> str:
    parts = []
    for one in series:
        first, last = one.points[0], one.points[-1]
        parts.append(
            f"{one.name}: {_percent(first.y)} at epsilon {words.epsilon(first.x, norm)}, "
            f"{_percent(last.y)} at {words.epsilon(last.x, norm)}"
        )
    return "; ".join(parts) + "."


def _curve_table(series: Sequence[Series], norm: str) -> Table:
    epsilons = sorted({point.x for one in series for point in one.points})
    at = [{point.x: point for point in one.points} for one in series]
    rows = tuple(
        (words.epsilon(value, norm), *(_point(points.get(value)) for points in at))
        for value in epsilons
    )
    columns = ("epsilon", *(one.name for one in series))
    return Table("Accuracy over epsilon", columns, rows, numeric=tuple(range(1, len(columns))))


def _point(point: Point | None) -> str:
    if point is None:
        return words.NOTHING
    ends = None if point.low is None or point.high is None else (point.low, point.high)
    return f"{words.percent(point.y)} {words.interval(ends)}".strip()


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


# Candidates --------------------------------------------------------------------------------------


def candidates(report: Part) -> Figure | None:
    """Size against held-out robust accuracy of the candidates, with the chosen one marked."""
    for phase in ("planning", "channel_planning"):
        found = report.part("phases", phase)
        points = _candidates(found)
        if points:
            return _candidate_figure(found, points)
    return None


def _candidates(found: Part) -> list[Labelled]:
    chosen, points = found.text("chosen"), []
    for candidate in found.parts("candidates"):
        size = candidate.number("parameters")
        robust = candidate.number(ROBUST)
        if size is not None and robust is not None:
            name = candidate.text("name") or "unnamed"
            points.append(Labelled(name, size, robust, name == chosen))
    return points


def _candidate_figure(found: Part, points: Sequence[Labelled]) -> Figure:
    caption = "Candidates: size against robust accuracy on held-out images"
    column = WIDTH - 118
    sizes, scores = [point.x for point in points], [point.y for point in points]
    label = "parameters"
    x = axis_over(sizes, LEFT, column - 22, label=label, write=_thousands)
    y = axis_over(
        scores,
        200,
        26,
        label="held-out robust accuracy",
        write=_percent_exactly(scores),
        may_be_log=False,
    )
    drawn = panel(Panel(x, y, ())) + labelled_points(points, x, y, column=column)
    chosen = next((point for point in points if point.chosen), None)
    description = (
        f"{len(points)} candidates"
        + (f"; chosen: {chosen.name} with {_thousands(chosen.x)} parameters" if chosen else "")
        + ". Before any training of the compressed network."
    )
    drawing = svg.drawing(
        drawn,
        width=WIDTH,
        height=236,
        key="candidates",
        title=caption,
        description=description,
    )
    return Figure(caption, (drawing,), _candidate_table(found))


def _candidate_table(found: Part) -> Table:
    chosen = found.text("chosen")
    rows = tuple(
        (
            candidate.text("name") or "unnamed",
            words.count(candidate.number("parameters")),
            words.count(candidate.number("macs")),
            words.decimal(candidate.number("ratio")),
            words.percent(candidate.number(CLEAN)),
            words.percent(candidate.number(ROBUST)),
            Cell("✓ chosen", "good") if candidate.text("name") == chosen else "",
        )
        for candidate in found.parts("candidates")
    )
    columns = ("candidate", "parameters", "MACs", "ratio", "clean", "robust", "chosen")
    return Table("Candidates, projected and not yet trained", columns, rows, (1, 2, 3, 4, 5))


def _thousands(value: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):.4g}{unit}"
    return f"{value:.4g}"


def _percent_exactly(values: Sequence[float]) -> Callable[[float], str]:
    """Percent with a decimal where the values lie close together."""
    close = 0 < max(values) - min(values) < 0.05
    return lambda value: f"{100 * value:.{1 if close else 0}f} %"


# Training ----------------------------------------------------------------------------------------

_PHASES = ("dense_training", "admm", "fine_tuning", "training")


@dataclass(frozen=True)
class _Epochs:
    """Every epoch of a run in order: the phase it belongs to, and its metrics."""

    phases: tuple[tuple[str, int], ...]  # name, first epoch
    metrics: tuple[Part, ...]

    def series(self, key: str, name: str, style: str) -> Series | None:
        """One metric over the epochs of all phases, interrupted where it was not measured."""
        points = tuple(
            Point(epoch, value)
            for epoch, metrics in enumerate(self.metrics, start=1)
            if (value := metrics.number(key)) is not None
        )
        dots = len(self.metrics) <= FEW_EPOCHS
        return Series(name, style, points, dots=dots, reach=1) if points else None


def _epochs(report: Part) -> _Epochs:
    known = dict(report.members("epochs"))
    order = [*(p for p in _PHASES if p in known), *(p for p in known if p not in _PHASES)]
    phases: list[tuple[str, int]] = []
    metrics: list[Part] = []
    for phase in order:
        if epochs := known[phase].parts():
            phases.append((words.name(phase), len(metrics) + 1))
            metrics += epochs
    return _Epochs(tuple(phases), tuple(metrics))


CLEAN, ROBUST = "held_out_clean_accuracy", "held_out_robust_accuracy"
_PANELS = (
    (
        "accuracy",
        (
            (CLEAN, "clean, held-out images", "clean"),
            (ROBUST, "robust, held-out images", "after"),
            ("train_robust_accuracy", "robust, training images", "before"),
        ),
    ),
    ("training loss", (("loss", "loss", "loss"),)),
    ("ADMM gap |W − Z| / |W|", (("admm_gap", "ADMM gap", "gap"),)),  # noqa: RUF001
)


def training(report: Part) -> Figure | None:
    """Accuracy, loss and the ADMM gap over all epochs, in panels above each other."""
    epochs = _epochs(report)
    groups = [
        (label, found)
        for label, keys in _PANELS
        if (found := [s for key in keys if (s := epochs.series(*key))])
    ]
    if not groups:
        return None
    caption = "Training: held-out accuracy, loss and ADMM gap, epoch by epoch"
    everything = [series for _, found in groups for series in found]
    explained = groups[0][1] if len(groups[0][1]) > 1 else []
    top, drawn = legend_height(explained) + 26, [legend(explained, 10)]
    for index, (label, found) in enumerate(groups):
        height = 110 if index == 0 else 70
        last = index == len(groups) - 1
        drawn.append(_training_panel(epochs, found, label, top, height, last=last, first=not index))
        top += height + (36 if last else 26)
    drawing = svg.drawing(
        *drawn,
        width=WIDTH,
        height=top,
        key="training",
        title=caption,
        description=_training_in_words(epochs, everything),
    )
    return Figure(caption, (drawing,), _training_table(epochs))


def _training_panel(
    epochs: _Epochs,
    series: Sequence[Series],
    label: str,
    top: float,
    height: float,
    *,
    last: bool,
    first: bool,
) -> Markup:
    values = [point.y for one in series for point in one.points]
    count = len(epochs.metrics)
    x = Axis(0.5, count + 0.5, LEFT, _END, label="epoch", marks=_epoch_marks(count))
    if first and max(values) <= 1 and min(values) >= 0:
        y = Axis(0, 1, top + height, top, label=label, write=_percent)
    else:
        y = axis_over(values, top + height, top, label=label, write=lambda v: f"{v:.3g}")
    rules = tuple(
        Rule("x", start - 0.5, name if first else "", row=index % 2)
        for index, (name, start) in enumerate(epochs.phases)
    )
    return panel(Panel(x, y, tuple(series), rules), show_x=last)


def _epoch_marks(count: int) -> tuple[float, ...]:
    step = max(1, math.ceil(count / 10))
    return tuple(float(epoch) for epoch in range(step, count + 1, step)) or (1.0,)


def _training_in_words(epochs: _Epochs, series: Sequence[Series]) -> str:
    phases = ", ".join(f"{name} from epoch {start}" for name, start in epochs.phases)
    ends = "; ".join(
        f"{one.name} from {one.points[0].y:.3g} to {one.points[-1].y:.3g}" for one in series
    )
    return f"{len(epochs.metrics)} epochs: {phases}. {ends}."


def _training_table(epochs: _Epochs) -> Table:
    starts = {start: name for name, start in epochs.phases}
    rows, phase = [], ""
    for epoch, metrics in enumerate(epochs.metrics, start=1):
        phase = starts.get(epoch, phase)
        rows.append(
            (
                str(epoch),
                phase,
                words.percent(metrics.number(CLEAN)),
                words.percent(metrics.number(ROBUST)),
                words.decimal(metrics.number("loss")),
                words.decimal(metrics.number("admm_gap")),
            )
        )
    columns = ("epoch", "phase", "held-out clean", "held-out robust", "loss", "ADMM gap")
    return Table("Epochs", columns, tuple(rows), (2, 3, 4, 5))


# Rank allocation ---------------------------------------------------------------------------------


def allocation(report: Part) -> Figure | None:
    """What every layer keeps of its output and input side, as bars."""
    rows = [
        Bar(share.name, share.out, share.inner, share.figures, muted=share.whole)
        for share in layer_shares(report)
    ]
    if not rows:
        return None
    channels = keeps_channels(report)
    what = "channels kept" if channels else "ranks"
    caption = (
        "Channels kept in each layer" if channels else "Rank allocation: how much each layer keeps"
    )
    pieces = _in_columns(rows)
    keys: tuple[str, ...] = ("outputs", "inputs") if channels else ("r_out / O", "r_in / I")
    if all(row.lower is None or row.muted for row in rows):  # the sizes of the layers are unknown
        keys = ("parameters",)
    drawings = tuple(
        _bars(piece, number, caption, keys, f"{what} of layers {first} to {first + len(piece) - 1}")
        for number, (first, piece) in enumerate(pieces, start=1)
    )
    return Figure(caption, drawings, wide=len(drawings) > 1)


def _in_columns(rows: Sequence[Bar]) -> list[tuple[int, Sequence[Bar]]]:
    """The rows in columns of about the same length, each with the number of its first row."""
    columns = math.ceil(len(rows) / ROWS_A_COLUMN)
    size = math.ceil(len(rows) / columns)
    return [(at + 1, rows[at : at + size]) for at in range(0, len(rows), size)]


def _bars(
    rows: Sequence[Bar], number: int, caption: str, keys: tuple[str, ...], description: str
) -> str:
    top = 34.0
    marks: list[Markup] = []
    for key, kind, left in zip(keys, ("out", "in"), (128, 228), strict=False):
        marks += [svg.box((left, 2), 14, 6, f"bar {kind}"), svg.text((left + 19, 9), key, "legend")]
    marks += [
        svg.text((128 + 168 * share, 26), f"{100 * share:.0f} %", "tick", "middle")
        for share in (0.0, 0.5, 1.0)
    ]
    return svg.drawing(
        *marks,
        bars(rows, top=top),
        width=WIDTH,
        height=top + BAR * len(rows) + 4,
        key=f"allocation-{number}",
        title=caption,
        description=f"The {description}; the table of every layer has the figures.",
    )
