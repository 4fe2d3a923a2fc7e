"""`/errors` and `/errors/{code}`: pages without script, as HTML or as text."""

from __future__ import annotations

import re
from html import escape
from itertools import groupby

from fastapi import APIRouter, Request, Response

from api.errors import NotFound
from api.problem_kinds import KINDS
from api.problem_pages.texts import Explanation, kept
from api.problems import problem_responses

router = APIRouter(tags=["system"])
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cache-Control": "public, max-age=3600",
    "Vary": "Accept",
}
_STYLE = "body{font:1rem/1.5 system-ui,sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem}"
_PAGE = (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    "<title>{title}</title><style>{style}</style></head>\n<body>\n{body}\n</body></html>\n"
)
_LINK = re.compile(r"\[([^]]+)\]\((/[a-z_/]*)\)")
_QUOTED, _CODE = re.compile("`([^`]+)`"), r"<code>\1</code>"
_TEXTS = {"text/html": {"schema": {"type": "string"}}, "text/plain": {"schema": {"type": "string"}}}
_DESCRIBED = {"description": "A page for people", "content": _TEXTS}


@router.get(
    "/errors", operation_id="list_errors", response_class=Response, responses={200: _DESCRIBED}
)
async def list_errors(request: Request) -> Response:
    """List every code of problems, failed jobs and rejected uploads; no key is needed."""
    lines = ["# Errors"]
    for part, found in groupby(kept(), lambda one: one.part):
        lines += [f"## {part}", *(f"- [{one.code}](/errors/{one.code})" for one in found)]
    return _answer(request, "Errors", lines)


@router.get(
    "/errors/{code}",
    operation_id="get_error",
    response_class=Response,
    responses={200: _DESCRIBED, **problem_responses("not_found")},
)
async def get_error(request: Request, code: str) -> Response:
    """Explain a code, at the address that a problem's `type` is; no key is needed."""
    found = [one for one in kept() if one.code == code]
    if not found:
        raise NotFound(f"There is no error {code!r}; GET /errors lists them.")
    kind = KINDS.get(code)
    lines = [f"# {code}", *([f"{kind.title}."] if kind else []), *_told(found)]
    return _answer(request, code, [*lines, "[All errors](/errors)"])


def _told(found: list[Explanation]) -> list[str]:
    """Return the paragraphs; whoever is in several parts of the page says in which."""
    texts = [(one.part, re.split(r"\n\s*\n", one.text)) for one in found]
    return [
        line
        for part, paragraphs in texts
        for line in ([f"## {part}"] if len(texts) > 1 else []) + paragraphs
    ]


def _answer(request: Request, title: str, lines: list[str]) -> Response:
    accept = request.headers.get("accept", "").lower()
    if "text/plain" in accept and "text/html" not in accept:
        text = "\n\n".join(_LINK.sub(r"\1", line) for line in lines) + "\n"
        return Response(text, media_type="text/plain", headers=HEADERS)
    body = "\n".join(_html(line) for line in lines)
    page = _PAGE.format(title=escape(title), style=_STYLE, body=body)
    return Response(page, media_type="text/html", headers=HEADERS)


def _html(line: str) -> str:
    """Return one block of the little Markdown there is: headings, links, `code`."""
    marks, _, rest = line.partition(" ")
    tag = {"#": "h1", "##": "h2", "-": "div"}.get(marks, "p")
    text = escape(line if tag == "p" else rest)
    text = _LINK.sub(r'<a href="\2">\1</a>', text)
    return f"<{tag}>{_QUOTED.sub(_CODE, text)}</{tag}>"
