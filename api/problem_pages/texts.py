"""What docs/errors.md says of each code; `python -m api.problem_pages.texts` writes texts.json.

The installed service has no docs/, so that the text lies beside this module; a test compares both.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, TypeAdapter

KEPT = Path(__file__).with_name("texts.json")
SOURCE = Path("docs/errors.md")
_ROW = re.compile(r"^\| (`[a-z_`, ]+`) \| (.+) \|$", re.MULTILINE)
_HEADING = re.compile(r"^### `([a-z_]+)`\n", re.MULTILINE)
_CODE = re.compile(r"`([a-z_]+)`")


class Explanation(BaseModel):
    """What one code means in one part of the page: Markdown paragraphs with `code` at most."""

    part: str
    code: str
    text: str


def explanations(page: str) -> list[Explanation]:
    """Return what each heading `### code`, and each row of a table of codes, explains."""
    found = []
    for part in page.split("\n## ")[1:]:
        title, _, rest = part.partition("\n")
        _, *sections = _HEADING.split(rest)
        for code, text in zip(sections[::2], sections[1::2], strict=True):
            found.append(Explanation(part=title, code=code, text=text.strip()))
        for codes, text in _ROW.findall(rest):
            found += [Explanation(part=title, code=c, text=text) for c in _CODE.findall(codes)]
    return found


def render(found: list[Explanation]) -> str:
    """Return the texts as they are committed."""
    return json.dumps([one.model_dump() for one in found], indent=1, ensure_ascii=False) + "\n"


@lru_cache
def kept() -> list[Explanation]:
    """Return the texts that the service shows."""
    return TypeAdapter(list[Explanation]).validate_json(KEPT.read_bytes())


if __name__ == "__main__":
    KEPT.write_text(render(explanations(SOURCE.read_text("utf-8"))), "utf-8")
