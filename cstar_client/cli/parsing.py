"""Values as people write them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer

NO_VALUE = "write NAME=VALUE"


def number(text: str) -> float:
    """Return a number, or a fraction such as 8/255."""
    above, line, below = text.partition("/")
    try:
        value = float(above) / (float(below) if line else 1.0)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not math.isfinite(value):
        raise typer.BadParameter(f"{text!r} is no number and no fraction such as 8/255")
    return value


def numbers(text: str) -> list[float]:
    """Return numbers with commas between them."""
    return [number(part.strip()) for part in text.split(",")]


def pairs(texts: Iterable[str]) -> dict[str, str]:
    """Return NAME=VALUE as a mapping."""
    found = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not (name and separator):
            raise typer.BadParameter(f"{text!r}: {NO_VALUE}")
        found[name] = value
    return found


def options(texts: Iterable[str]) -> dict[str, Any]:
    """Return NAME=VALUE as a mapping, whole numbers as such."""
    return {
        name: int(value) if value.isdecimal() else value for name, value in pairs(texts).items()
    }


def existing(text: str, prefix: str) -> Path | None:
    """Return the file of this name; None for an id, or name@alias, of what was uploaded before."""
    path = Path(text)
    if path.is_file():
        return path
    if text.startswith(prefix) or "@" in text:
        return None
    raise typer.BadParameter(f"there is no file {text}, and it is no id ({prefix}...)")
