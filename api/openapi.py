"""The OpenAPI document; `python -m api.openapi` writes it to openapi.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from api.auth import SCHEME
from api.problems import PROBLEM_CONTENT, Problem, problem_responses
from api.scopes import required_scope

_REFERENCE = "#/components/schemas/{model}"


def with_problems(document: dict[str, Any]) -> dict[str, Any]:
    """Describe every refusal as the problem document it is, and the scope of every operation."""
    schema = Problem.model_json_schema(ref_template=_REFERENCE)
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas.update(schema.pop("$defs"))
    schemas["Problem"] = schema
    for path in document["paths"].values():
        for method, operation in path.items():
            if any(SCHEME in needed for needed in operation.get("security", ())):
                _require_scope(method, operation)
            _complete(operation["responses"])
    return document


def _require_scope(method: str, operation: dict[str, Any]) -> None:
    """Say which scope the key needs: OpenAPI 3.1 lets any scheme list such roles."""
    operation["security"] = [{SCHEME: [required_scope(operation["tags"], method)]}]
    operation["responses"].setdefault("429", problem_responses("rate_limited")[429])
    refused = operation["responses"].setdefault("403", problem_responses("insufficient_scope")[403])
    if "insufficient_scope" not in refused["description"]:
        refused["description"] += ", `insufficient_scope`"


def _complete(responses: dict[str, Any]) -> None:
    if "application/json" in responses.get("422", {}).get("content", {}):
        del responses["422"]
    responses["default"] = {"description": "Problem", "content": PROBLEM_CONTENT}


def render(document: dict[str, Any]) -> str:
    """Return the document as it is committed."""
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def main() -> None:
    """Write the document of the application to the file named, or to openapi.json."""
    from api.main import app  # noqa: PLC0415 (the application describes itself with this module)

    path = Path(sys.argv[1] if len(sys.argv) > 1 else "openapi.json")
    path.write_text(render(app.openapi()), "utf-8")


if __name__ == "__main__":
    main()
