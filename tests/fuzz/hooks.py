"""What Schemathesis is told beyond its configuration; it imports this module itself."""

from __future__ import annotations

import itertools
from typing import Any

import schemathesis
from hypothesis import strategies as st

from tests.api.world import archive
from tests.fuzz import facts
from tests.fuzz.fresh import Fresh, Turns

# A body of bytes is an upload; few byte strings are anything that can be one.
_UPLOADS = st.sampled_from([archive(), archive("other"), b"PK\x05\x06" + bytes(18)]) | st.binary()
schemathesis.openapi.media_type("application/octet-stream", _UPLOADS)

_facts = facts.read()
_spare = {name: itertools.cycle(ids) for name, ids in _facts.expendable.items()}
_turns = Turns(Fresh(_facts, _spare))


@schemathesis.hook
def before_load_schema(context: schemathesis.HookContext, schema: dict[str, Any]) -> None:
    """Leave out the catch-all, under which no status would be undocumented."""
    for operations in schema["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("default", None)


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: Any, kwargs: dict[str, Any]) -> None:
    """Let examples name what there is, and nothing end the keys and things of this run.

    What a request uses up is made for it every other time.
    """
    if isinstance(case.body, dict):
        texts = {name: value for name, value in case.body.items() if isinstance(value, str)}
        case.body |= {name: _facts.examples.get(text, text) for name, text in texts.items()}
    if case.method == "DELETE" or case.path.endswith(("/revoke", "/rotate")):
        for name, value in case.path_parameters.items():
            if value in _facts.kept and name in _spare:
                case.path_parameters[name] = next(_spare[name])
    _turns.take(case)
