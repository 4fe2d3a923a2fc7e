"""Whether the secret under which API keys are hashed can be guessed."""

from __future__ import annotations

MIN_CHARACTERS = 32
MIN_DIFFERENT = 8
_EXAMPLES = ("changeme", "change-me", "change_me", "example", "placeholder", "your-secret")
ADVICE = "set CSTAR_SECRET_KEY to the output of `openssl rand -hex 32`"


def weakness(secret: str) -> str | None:
    """Return what is wrong with a secret in words, None when nothing is."""
    if len(secret) < MIN_CHARACTERS:
        return f"{len(secret)} characters, at least {MIN_CHARACTERS} are needed"
    different = len(set(secret))
    if different < MIN_DIFFERENT:
        return f"{len(secret)} characters, {different} of them different: can be guessed"
    found = [word for word in _EXAMPLES if word in secret.lower()]
    return f'it contains "{found[0]}", as examples do' if found else None
