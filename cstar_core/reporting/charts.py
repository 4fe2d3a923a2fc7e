"""Charts as SVG: axes, lines with bands, points with labels, bars.

Drawn 380 units wide with letters of 11, so that one fits a telephone's width nearly unscaled and
two stand side by side on a desk. Colours are classes of the stylesheet, for light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from cstar_core.reporting import svg
from cstar_core.reporting.words import shortened

WIDTH = 380.0
LEFT, RIGHT = 44.0, 10.0
LETTER = 6.4  # about the width of a letter at 11 units, in the widest of the usual fonts
_LINE = 14.0

Kind = Literal["linear", "log", "root"]


def _transform(value: float, kind: Kind) -> float:
    if kind == "log":
        return math.log10(max(value, 1e-300))
    return math.sqrt(max(value, 0.0)) if kind == "root" else value


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` on pixels from `start` to `end`, and how they are labelled."""

    low: float
    high: float
    start: float
    end: float
    kind: Kind = "linear"
    label: str = ""
    write: Callable[[float], str] = "{:g}".format
    marks: tuple[float, ...] = ()

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        low, high = _transform(self.low, self.kind), _transform(self.high, self.kind)
        share = (_transform(value, self.kind) - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    @property
    def ticks(self) -> tuple[float, ...]:
        """Where the axis is labelled: at `marks`, or at round numbers."""
        if self.marks:
            return self.marks
        if self.kind == "log":
            return log_ticks(self.low, self.high)
        return round_ticks(self.low, self.high)


def round_ticks(low: float, high: float, *, most: int = 6) -> tuple[float, ...]:
    """At most `most` multiples of 1, 2 or 5 times a power of ten within [low, high]."""
    span = high - low
    if not (span > 0 and math.isfinite(span)):
        return (low,)
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(s * power for s in (1, 2, 5, 10, 20) if span / (s * power) <= most - 1)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(index * step for index in range(first, last + 1))


def log_ticks(low: float, high: float) -> tuple[float, ...]:
    """Powers of ten within [low, high], with their 2 and 5 where there would be few."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    powers = tuple(10.0**exponent for exponent in decades if low <= 10.0**exponent <= high)
    if len(powers) >= 3:
        return powers[:: math.ceil(len(powers) / 7)]
    finer = tuple(digit * 10.0**exponent for exponent in decades for digit in (1, 2, 5))
    return tuple(tick for tick in finer if low <= tick <= high) or (low, high)


@dataclass(frozen=True)
class Point:
    """A point of a series, with the ends of its interval where it has one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Series:
    """Points of one kind in ascending x; `style` is a class that sets colour, dashes and markers.

    The line is interrupted where x grows by more than `reach`.
    """

    name: str
    style: str
    points: tuple[Point, ...]
    dots: bool = True
    reach: float = math.inf

    @property
    def runs(self) -> list[list[Point]]:
        """The points between interruptions."""
        runs: list[list[Point]] = []
        for point in self.points:
            if runs and point.x - runs[-1][-1].x <= self.reach:
                runs[-1].append(point)
            else:
                runs.append([point])
        return runs


@dataclass(frozen=True)
class Rule:
    """A line across the panel that marks a value of one axis, with its label.

    That of an upright line stands at the top, or on the `row`-th line from the bottom.
    """

    axis: Literal["x", "y"]
    at: float
    label: str
    row: int | None = None


@dataclass(frozen=True)
class Panel:
    """Series over two axes; the lower end of `y` is the bottom."""

    x: Axis
    y: Axis
    series: tuple[Series, ...]
    rules: tuple[Rule, ...] = ()


def axis_over(
    values: Sequence[float],
    start: float,
    end: float,
    *,
    label: str = "",
    write: Callable[[float], str] = "{:g}".format,
    may_be_log: bool = True,
) -> Axis:
    """An axis with a little room around `values`: logarithmic where they span a decade."""
    low, high = min(values), max(values)
    if may_be_log and low > 0 and high / low >= 10:
        return Axis(low / 1.25, high * 1.25, start, end, "log", label, write)
    room = 0.08 * (high - low) or 0.08 * abs(high) or 1.0
    bottom = low - room if low < 0 or low > room else 0.0
    return Axis(bottom, high + room, start, end, "linear", label, write)


def panel(drawn: Panel, *, show_x: bool = True) -> Markup:
    """Grid, axes, rules and series; the labels of x only where `show_x`."""
    return Markup("").join(
        [
            *_grid(drawn),
            *(_x_labels(drawn) if show_x else ()),
            *(_rule(drawn, rule) for rule in drawn.rules),
            *(mark for series in drawn.series for mark in _series(drawn, series)),
        ]
    )


def _grid(drawn: Panel) -> list[Markup]:
    x, y = drawn.x, drawn.y
    marks = [svg.line((x.start, y(tick)), (x.end, y(tick)), "grid") for tick in y.ticks]
    marks += [
        svg.text((x.start - 5, y(tick) + 3.5), y.write(tick), "tick", "end") for tick in y.ticks
    ]
    marks.append(svg.line((x.start, y.start), (x.end, y.start), "axis"))
    marks.append(svg.text((0, y.end - 8), y.label, "axis-label"))
    return marks


def _x_labels(drawn: Panel) -> list[Markup]:
    """Ticks with their labels; a label that would touch the one before is left out."""
    x, bottom = drawn.x, drawn.y.start
    marks, free = [], -math.inf
    for tick in x.ticks:
        words = x.write(tick)
        half = LETTER * len(words) / 2
        marks.append(svg.line((x(tick), bottom), (x(tick), bottom + 4), "axis"))
        if x(tick) - half >= free:
            centre = min(x(tick), WIDTH - half)
            marks.append(svg.text((centre, bottom + 15), words, "tick", "middle"))
            free = x(tick) + half + 5
    middle = (x.start + x.end) / 2
    marks.append(svg.text((middle, bottom + 30), x.label, "axis-label", "middle"))
    return marks


def _rule(drawn: Panel, rule: Rule) -> Markup:
    x, y = drawn.x, drawn.y
    if rule.axis == "y":
        across = svg.line((x.start, y(rule.at)), (x.end, y(rule.at)), "rule")
        return across + svg.text((x.start + 4, y(rule.at) - 4), rule.label, "rule-label")
    upright = svg.line((x(rule.at), y.start), (x(rule.at), y.end), "rule")
    fits = x(rule.at) + 4 + LETTER * len(rule.label) <= x.end
    where, anchor = (x(rule.at) + 4, "start") if fits else (x(rule.at) - 4, "end")
    height = y.end + 9 if rule.row is None else y.start - 5 - 12 * rule.row
    return upright + svg.text((where, height), rule.label, "rule-label", anchor)


def _series(drawn: Panel, series: Series) -> list[Markup]:
    x, y = drawn.x, drawn.y
    marks = [_band(drawn, series)]
    for run in series.runs:
        marks.append(svg.path([(x(p.x), y(p.y)) for p in run], f"line {series.style}"))
        if series.dots or len(run) == 1:
            marks += [
                svg.circle(
                    (x(p.x), y(p.y)),
                    3,
                    f"dot {series.style}",
                    f"{series.name}: {y.write(p.y)} at {x.write(p.x)}",
                )
                for p in run
            ]
    return marks


def _band(drawn: Panel, series: Series) -> Markup:
    """The intervals of a series as an area behind it."""
    x, y = drawn.x, drawn.y
    known = [
        (p.x, p.low, p.high) for p in series.points if p.low is not None and p.high is not None
    ]
    upper = [(x(at), y(high)) for at, _, high in known]
    lower = [(x(at), y(low)) for at, low, _ in known]
    return svg.path([*upper, *reversed(lower)], f"band {series.style}", closed=True)


def legend(series: Sequence[Series], top: float) -> Markup:
    """A sample of each series with its name, on as many lines as they need."""
    return Markup("").join(
        mark
        for one, (at, line) in zip(series, _legend_places(series), strict=True)
        for mark in _sample(one, at, top + line * _LINE)
    )


def _sample(one: Series, at: float, baseline: float) -> list[Markup]:
    marks = [svg.line((at, baseline - 4), (at + 20, baseline - 4), f"line {one.style}")]
    if one.dots:
        marks.append(svg.circle((at + 10, baseline - 4), 3, f"dot {one.style}"))
    return [*marks, svg.text((at + 26, baseline), one.name, "legend")]


def legend_height(series: Sequence[Series]) -> float:
    """The height of what `legend` draws."""
    return _LINE * (1 + max((line for _, line in _legend_places(series)), default=0))


def _legend_places(series: Sequence[Series]) -> list[tuple[float, int]]:
    """Where each entry starts, and on which line."""
    places, at, line = [], LEFT, 0
    for one in series:
        width = 26 + LETTER * len(one.name) + 14
        if at > LEFT and at + width > WIDTH:
            at, line = LEFT, line + 1
        places.append((at, line))
        at += width
    return places


@dataclass(frozen=True)
class Labelled:
    """A point with a name; the `chosen` one stands out by form as well as by colour."""

    name: str
    x: float
    y: float
    chosen: bool = False


def labelled_points(points: Sequence[Labelled], x: Axis, y: Axis, *, column: float) -> Markup:
    """Points, and their names in a column at `column` with a line from each, so that none collide.

    Where there are more names than lines, the chosen and the best keep theirs.
    """
    room = max(1, int((y.start - y.end) // 12))
    named = sorted(points, key=lambda point: (not point.chosen, -point.y))[:room]
    named.sort(key=lambda point: -point.y)
    heights = _spread([y(point.y) for point in named], low=y.end, high=y.start, gap=12)
    marks = []
    for point, height in zip(named, heights, strict=True):
        style = "chosen" if point.chosen else "candidate"
        name = shortened(point.name, int((WIDTH - column) / LETTER))
        start = (x(point.x), y(point.y))
        marks.append(svg.path([start, (column - 14, height), (column - 3, height)], "leader"))
        marks.append(svg.text((column, height + 3.5), name, f"tick {style}"))
    for point in points:
        centre, style = (x(point.x), y(point.y)), "chosen" if point.chosen else "candidate"
        marks.append(svg.circle(centre, 4.5 if point.chosen else 3.5, f"dot {style}", point.name))
        if point.chosen:
            marks.append(svg.circle(centre, 8, "ring chosen"))
    return Markup("").join(marks)


def _spread(wished: Sequence[float], *, low: float, high: float, gap: float) -> list[float]:
    """Heights near those wished (ascending), at least `gap` apart, within [low, high]."""
    heights: list[float] = []
    for wish in wished:
        heights.append(max(wish, heights[-1] + gap if heights else low))
    if heights and heights[-1] > high:
        heights[-1] = high
        for index in range(len(heights) - 2, -1, -1):
            heights[index] = min(heights[index], heights[index + 1] - gap)
    return heights


@dataclass(frozen=True)
class Bar:
    """Two shares of one row, in 0..1, and what they are in figures; None draws no bar."""

    name: str
    upper: float | None
    lower: float | None
    figures: str
    muted: bool = False


def bars(rows: Sequence[Bar], *, top: float, start: float = 128, end: float = 296) -> Markup:
    """One row per bar: name, two thin bars one above the other, figures."""
    marks = [
        svg.line(
            (start + share * (end - start), top - 4),
            (start + share * (end - start), top + BAR * len(rows)),
            "grid",
        )
        for share in (0.0, 0.5, 1.0)
    ]
    for index, row in enumerate(rows):
        marks += _bar(row, top + BAR * index, start, end)
    return Markup("").join(marks)


BAR = 19.0


def _bar(row: Bar, top: float, start: float, end: float) -> list[Markup]:
    style = " muted" if row.muted else ""
    marks = [
        svg.text((start - 7, top + 11), shortened(row.name, 20), f"tick mono{style}", "end"),
        svg.text((end + 7, top + 11), row.figures, f"tick{style}"),
    ]
    for offset, share, kind in ((2, row.upper, "out"), (8, row.lower, "in")):
        if share is not None:
            width = min(1.0, max(0.0, share)) * (end - start)
            marks.append(svg.box((start, top + offset), width, 5, f"bar {kind}{style}"))
    return marks
