"""A secret that can be guessed is known as such."""

from __future__ import annotations

import secrets

import pytest

from store.secret_key import weakness


@pytest.mark.parametrize(
    ("secret", "word"),
    [
        ("short", "at least 32"),
        ("ab" * 32, "2 of them different"),
        ("changeme-changeme-changeme-changeme", "changeme"),
        ("An-Example-of-a-secret-of-48-characters-in-a-manual", "example"),
    ],
)
def test_a_secret_that_can_be_guessed_is_weak(secret: str, word: str) -> None:
    assert word in (weakness(secret) or "")


@pytest.mark.parametrize("make", [secrets.token_hex, secrets.token_urlsafe])
def test_a_random_secret_is_not_weak(make: object) -> None:
    assert callable(make)
    assert weakness(make(32)) is None
