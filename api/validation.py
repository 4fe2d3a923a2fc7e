"""Pydantic's findings as faults: JSON pointers, and the allowed names beside an unknown one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel

from api.errors import Fault
from api.pointers import json_pointer

_NAMES_A_MEMBER = frozenset({"missing", "extra_forbidden"})


def is_unparsed(error: RequestValidationError) -> bool:
    """Return whether the body was not taken for JSON at all (its Content-Type says otherwise)."""
    return isinstance(error.body, bytes)


def faults_of(error: RequestValidationError, route: Any) -> list[Fault]:
    """Return one fault for each of pydantic's errors; `route` knows the body's contract."""
    field = getattr(route, "body_field", None)
    contract = field.field_info.annotation if field is not None else None
    return [_fault(found, error.body, contract) for found in error.errors()]


def _fault(found: Mapping[str, Any], body: Any, contract: Any) -> Fault:
    source, *loc = found["loc"]
    if source != "body":
        return Fault(found["msg"], parameter=str(loc[0]))
    if found["type"] == "json_invalid":
        return Fault(f"not JSON: {found['ctx']['error']} at character {loc[0]}", pointer="")
    parts = _within(body, loc, names_a_member=found["type"] in _NAMES_A_MEMBER)
    return Fault(_words(found, parts, contract), pointer=json_pointer(parts))


def _within(body: Any, loc: Sequence[str | int], *, names_a_member: bool) -> list[str | int]:
    """Return the part of pydantic's path that exists in the body: it also names union members."""
    parts: list[str | int] = []
    for number, part in enumerate(loc, start=1):
        in_object = isinstance(body, dict) and part in body
        in_array = isinstance(body, list) and isinstance(part, int) and part < len(body)
        if in_object or in_array:
            body = body[part]
            parts.append(part)
        elif names_a_member and number == len(loc):
            parts.append(part)
    return parts


def _words(found: Mapping[str, Any], parts: Sequence[str | int], contract: Any) -> str:
    if found["type"] == "extra_forbidden":
        allowed = ", ".join(_allowed(contract, parts[:-1]))
        return f'unknown field "{parts[-1]}"; allowed here: {allowed}'
    return str(found["msg"]).removeprefix("Value error, ")


def _allowed(contract: Any, parents: Sequence[str | int]) -> list[str]:
    contracts = list(_contracts(contract))
    for part in parents:
        fields = [c.model_fields[str(part)] for c in contracts if part in c.model_fields]
        contracts = [inner for field in fields for inner in _contracts(field.annotation)]
    return sorted({name for contract in contracts for name in contract.model_fields})


def _contracts(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _contracts(argument)
