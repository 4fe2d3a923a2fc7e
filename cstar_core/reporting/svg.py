"""The few SVG elements that a chart needs, with every text escaped."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup, escape

Points = Iterable[tuple[float, float]]


def element(kind: str, *children: str, **attributes: object) -> Markup:
    """`<kind ...>children</kind>`; `class_` is written class, `text_anchor` text-anchor.

    Children that are not `Markup` already are escaped. Attributes that are None are left out.
    """
    written = "".join(
        f' {_attribute(name)}="{escape(_value(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    inside = "".join(escape(child) for child in children)
    return Markup(f"<{kind}{written}>{inside}</{kind}>")  # noqa: S704 - all of it is escaped


def drawing(
    *children: str, width: float, height: float, key: str, title: str, description: str
) -> Markup:
    """A whole SVG with a name and a description for those who do not see it.

    `key` is unique within the page, as the ids of both texts are made of it.
    """
    return element(
        "svg",
        element("title", title, id=f"{key}-title"),
        element("desc", description, id=f"{key}-desc"),
        *children,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_labelledby=f"{key}-title {key}-desc",
        class_="chart",
    )


def line(start: tuple[float, float], end: tuple[float, float], style: str) -> Markup:
    """A straight line."""
    return element("line", x1=start[0], y1=start[1], x2=end[0], y2=end[1], class_=style)


def text(where: tuple[float, float], words: str, style: str = "", anchor: str = "start") -> Markup:
    """Words whose baseline starts, ends or is centred at a point."""
    return element("text", words, x=where[0], y=where[1], text_anchor=anchor, class_=style or None)


def path(points: Points, style: str, *, closed: bool = False) -> Markup:
    """A line through `points`, or the area within them."""
    steps = " L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return (
        element("path", d=f"M{steps}{'Z' if closed else ''}", class_=style) if steps else Markup()
    )


def circle(centre: tuple[float, float], radius: float, style: str, hint: str = "") -> Markup:
    """A dot; `hint` is shown where the pointer rests on it."""
    inside = (element("title", hint),) if hint else ()
    return element("circle", *inside, cx=centre[0], cy=centre[1], r=radius, class_=style)


def box(corner: tuple[float, float], width: float, height: float, style: str) -> Markup:
    """A rectangle by its upper left corner."""
    x, y = corner
    return element("rect", x=x, y=y, width=max(0.0, width), height=height, class_=style)


def _attribute(name: str) -> str:
    """The SVG name of a keyword; `viewBox` is one of the few with a capital."""
    return name.rstrip("_").replace("_", "-")


def _value(value: object) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
