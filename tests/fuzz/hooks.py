"""What Schemathesis is told beyond its configuration; it imports this module itself."""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import strategies as st

from tests.api.world import archive

# A body of bytes is an upload; few byte strings are anything that can be one.
_UPLOADS = st.sampled_from([archive(), archive("other"), b"PK\x05\x06" + bytes(18)]) | st.binary()
schemathesis.openapi.media_type("application/octet-stream", _UPLOADS)


@schemathesis.hook
def before_load_schema(context: schemathesis.HookContext, schema: dict[str, Any]) -> None:
    """Leave out the catch-all, under which no status would be undocumented."""
    for operations in schema["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("default", None)
