"""The `type` of a problem leads to a page that explains it."""

from __future__ import annotations

from typing import Any

import pytest

from api.problem_kinds import KINDS
from api.problem_pages.texts import kept

HTML = {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}


@pytest.mark.parametrize("code", sorted({one.code for one in kept()}))
def test_every_code_has_a_page_without_script(anonymous: Any, code: str) -> None:
    answer = anonymous.get(f"/errors/{code}", headers=HTML)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert f"<h1>{code}</h1>" in answer.text
    assert "<script" not in answer.text


def test_a_problem_leads_to_its_page(client: Any) -> None:
    problem = client.get("/v1/jobs/job_none").json()
    page = client.get(problem["type"], headers=HTML)
    assert problem["title"] in page.text
    assert "what belongs to another" in page.text


def test_text_for_who_asks_for_it(anonymous: Any) -> None:
    answer = anonymous.get("/errors/too_large", headers={"Accept": "text/plain"})
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["vary"] == "Accept"
    assert "A JSON body has at most 1 MiB" in answer.text
    assert "<" not in answer.text


def test_markup_in_a_text_is_shown_and_not_obeyed(anonymous: Any) -> None:
    page = anonymous.get("/errors/invalid_digest", headers=HTML).text
    assert "<code>Content-Digest: sha-256=:&lt;base64&gt;:</code>" in page


def test_a_code_of_two_parts_is_explained_for_both(anonymous: Any) -> None:
    page = anonymous.get("/errors/shape_mismatch", headers=HTML).text
    assert page.count("<h2>") == 2


def test_the_index_lists_every_code(anonymous: Any) -> None:
    page = anonymous.get("/errors", headers=HTML).text
    assert all(f'<a href="/errors/{code}">{code}</a>' in page for code in KINDS)


def test_an_unknown_code_is_a_problem(anonymous: Any) -> None:
    answer = anonymous.get("/errors/%3Cscript%3E")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
