"""What a report consists of before it is written as HTML or Markdown: sections of plain blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Tone = Literal["", "good", "bad", "warn", "muted", "number", "code"] | str


@dataclass(frozen=True)
class Cell:
    """One cell of a table; `tone` is a style of the stylesheet, never the only sign of anything."""

    text: str
    tone: Tone = ""


@dataclass(frozen=True)
class Table:
    """A table whose first column names its rows; `numeric` columns are set flush right.

    A string in a row is a plain cell. `wide` tables scroll within themselves on a narrow screen;
    the others are stacked there, each cell under the name of its column.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell | str, ...], ...]
    numeric: tuple[int, ...] = ()
    stacked: bool = False

    @property
    def cells(self) -> tuple[tuple[Cell, ...], ...]:
        """All rows as cells."""
        return tuple(
            tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in row)
            for row in self.rows
        )


@dataclass(frozen=True)
class Note:
    """A paragraph."""

    text: str
    tone: Tone = ""


@dataclass(frozen=True)
class Items:
    """A list of sentences, with what is said when there are none."""

    texts: tuple[str, ...]
    otherwise: str = ""


@dataclass(frozen=True)
class Figure:
    """A drawing (SVG, already safe), what it shows, and the same figures as a table."""

    caption: str
    drawings: tuple[str, ...]
    table: Table | None = None
    wide: bool = False


@dataclass(frozen=True)
class Folded:
    """Blocks that are shown on demand, and always on paper."""

    summary: str
    blocks: tuple[Block, ...]


Block = Table | Note | Items | Figure | Folded


@dataclass(frozen=True)
class Section:
    """A headed part of the report; `anchor` is its fragment in the page."""

    anchor: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Tile:
    """A figure that is understood at a glance: what it is, the figure, what stands behind it."""

    label: str
    figure: str
    detail: str


@dataclass(frozen=True)
class Badge:
    """An outcome in two or three words, with its sign."""

    sign: str
    text: str
    tone: Tone


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    origin: str
    headline: str
    tone: Tone
    badges: tuple[Badge, ...]
    tiles: tuple[Tile, ...]
    sections: tuple[Section, ...]
