"""A notice as a report lists it: a stable code, and the figures behind it in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Notice:
    """One notice of a gate: `code` is stable, `detail` is a sentence with its figures."""

    code: str
    detail: str

    def to_json(self) -> dict[str, str]:
        """{"code", "detail"}."""
        return asdict(self)
