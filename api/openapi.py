"""The OpenAPI document; `python -m api.openapi` writes it to openapi.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from api.auth import SCHEME
from api.examples import EXAMPLES
from api.problems import PROBLEM_CONTENT, Problem, problem_responses
from api.response_headers import header_components, promise_headers
from api.scopes import required_scope

_REFERENCE = "#/components/schemas/{model}"


def completed(document: dict[str, Any]) -> dict[str, Any]:
    """Add what FastAPI does not know: problem documents, scopes, headers and examples."""
    components = document["components"]
    _replace_errors(components["schemas"])
    components["headers"] = header_components()
    for path in document["paths"].values():
        for method, operation in path.items():
            if any(SCHEME in needed for needed in operation.get("security", ())):
                _require_scope(method, operation)
            _complete(operation)
    for name, examples in EXAMPLES.items():
        components["schemas"][name]["examples"] = examples
    return document


def _replace_errors(schemas: dict[str, Any]) -> None:
    schema = Problem.model_json_schema(ref_template=_REFERENCE)
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas.update(schema.pop("$defs"))
    schemas["Problem"] = schema


def _require_scope(method: str, operation: dict[str, Any]) -> None:
    """Say which scope the key needs: OpenAPI 3.1 lets any scheme list such roles."""
    operation["security"] = [{SCHEME: [required_scope(operation["tags"], method)]}]
    operation["responses"].setdefault("429", problem_responses("rate_limited")[429])
    refused = operation["responses"].setdefault("403", problem_responses("insufficient_scope")[403])
    if "insufficient_scope" not in refused["description"]:
        refused["description"] += ", `insufficient_scope`"


def _complete(operation: dict[str, Any]) -> None:
    for parameter in operation.get("parameters", ()):
        parameter["schema"] = _without_null(parameter["schema"])
    responses = operation["responses"]
    if "application/json" in responses.get("422", {}).get("content", {}):
        del responses["422"]
    if "requestBody" in operation:  # it may end early, or be no text at all
        responses.setdefault("400", problem_responses("bad_request")[400])
    responses["default"] = {"description": "Problem", "content": PROBLEM_CONTENT}
    promise_headers(responses)


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a parameter's schema without null: there is none in a URL or a header."""
    kept = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    if len(kept) != 1:
        return schema
    return {**kept[0], **{name: value for name, value in schema.items() if name != "anyOf"}}


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
