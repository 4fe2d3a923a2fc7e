"""`report.md`: the outcome as a comment on a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from cstar_core.reporting.build import document
from cstar_core.reporting.document import Block, Cell, Document, Folded, Items, Note, Section, Table

LONGEST = 65_000  # characters: GitHub takes 65,536 for a comment
LONGEST_TEXT = 500  # of a single string, so that one name cannot push out the figures
_IN_A_COMMENT = ("targets", "figures", "reliability", "method", "limits")
_SPECIAL = re.compile(r"[\\`*_\[\]|~$<>]|^[-+=#]|(?<=^\d)\.(?=\s|$)|(?<=^\d\d)\.(?=\s|$)")
_LINKING = re.compile(r"(@|#|(?:https?|ftp|mailto|xmpp):|www(?=\.)|\bGH(?=-))(?=\S)", re.IGNORECASE)
NO_SPACE = "\u200b"
QUOTE, PIPE = "'", r"\|"


def render_markdown(report: Mapping[str, Any]) -> str:
    """The verdict, targets, figures, flags, hashes and limits in GitHub's Markdown.

    Without links, and with every string of the report escaped. Shorter than 65,000 characters:
    what would be longer is cut at a whole section, and says so.
    """
    whole = document(report)
    parts = [_head(whole)]
    parts += [_section(section) for section in whole.sections if section.anchor in _IN_A_COMMENT]
    return _shortened([part for part in parts if part])


def _head(whole: Document) -> str:
    badges = " · ".join(f"{badge.sign} {escaped(badge.text)}" for badge in whole.badges)
    lines = [f"## {escaped(whole.title)}", f"**{escaped(whole.headline)}**", badges]
    return "\n\n".join(line for line in lines if line)


def _section(section: Section) -> str:
    blocks = [text for block in section.blocks if (text := "\n".join(_block(block)))]
    return "\n\n".join([f"### {escaped(section.title)}", *blocks])


def _block(block: Block) -> Iterable[str]:
    match block:
        case Table():
            yield from _table(block)
        case Note():
            yield escaped(block.text)
        case Items():
            yield from (f"- {escaped(text)}" for text in block.texts or (block.otherwise,) if text)
        case Folded():  # settings and long tables: they are in report.html and report.json
            return
        case _:
            return


def _table(table: Table) -> Iterable[str]:
    yield _row(table.columns)
    yield _row("--:" if index in table.numeric else ":--" for index in range(len(table.columns)))
    for cells in table.cells:
        yield _row(_cell(cell) for cell in cells)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    """Identifiers and hashes as code, in which nothing is markup but the ends of it."""
    if cell.tone != "code":
        return escaped(cell.text)
    return f"`{_flat(cell.text).replace('`', QUOTE).replace('|', PIPE)}`"


def escaped(text: str) -> str:
    """`text` on one line, so that nothing in it is markup, HTML, a link, a mention or an issue.

    GitHub looks for mentions, issues and addresses in the finished page, where a backslash is gone
    already: a space of no width keeps them apart.
    """
    plain = _SPECIAL.sub(r"\\\g<0>", _flat(text).replace("&", "&amp;"))
    return _LINKING.sub(rf"\1{NO_SPACE}", plain)


def _flat(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= LONGEST_TEXT else flat[: LONGEST_TEXT - 1] + "…"


def _shortened(parts: list[str]) -> str:
    """The parts up to what fits; the first always does."""
    note = "\n\n(shortened: the whole report is report.html)\n"
    text = parts[0]
    for part in parts[1:]:
        if len(text) + len(part) + len(note) + 2 > LONGEST:
            return text + note
        text += "\n\n" + part
    return text + "\n"
