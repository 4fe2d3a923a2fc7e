"""Documents for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from cstar_client.cli.session import Session

Row = Mapping[str, Any]
Column = tuple[str, Callable[[Row], Any]]
DEFAULT_ROWS = 20


def listing(session: Session, rows: Iterable[Row], columns: Sequence[Column]) -> None:
    """Answer with rows: a JSON array, or a table."""
    found = list(rows)

    def show(console: Console) -> None:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for place, (heading, _) in enumerate(columns):
            table.add_column(heading, no_wrap=place == 0)  # an id that is cut is of no use
        for row in found:
            table.add_row(*(_text(value(row)) for _, value in columns))
        console.print(table)

    session.write(found, show)


def details(session: Session, document: Row, names: Sequence[str]) -> None:
    """Answer with a document: JSON, or these of its fields."""

    def show(console: Console) -> None:
        table = Table.grid(padding=(0, 2))
        for name in names:
            if document.get(name) not in (None, [], {}):
                table.add_row(f"[dim]{name}[/dim]", _text(document[name]))
        console.print(table)

    session.write(document, show)


def field(name: str) -> Callable[[Row], Any]:
    """Return what reads a field of a row."""
    return lambda row: row.get(name)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(_text(one) for one in value)
    return str(value)
