"""The opcodes of a pickle, read without running any of them.

Format: the pickle protocol as described in the standard library's `pickletools`.
"""

from __future__ import annotations

import pickletools
from typing import IO

from cstar_core.errors import InvalidModel
from cstar_core.files.listing import shown

Opcode = tuple[str, object]


def read_opcodes(stream: IO[bytes], *, limit: int = 1_000_000) -> tuple[Opcode, ...]:
    """Name and argument of every opcode up to the first STOP; the stream is left right behind it.

    Raises `InvalidModel`: `damaged_file` when this is not a complete pickle, `too_large` past
    `limit` opcodes.
    """
    opcodes: list[Opcode] = []
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            opcodes.append((opcode.name, argument))
            if len(opcodes) > limit:
                raise InvalidModel(
                    f"The pickle has more than {limit} steps; save the weights alone, without the "
                    "optimizer: torch.save(model.state_dict(), path).",
                    code="too_large",
                )
    except (ValueError, IndexError, KeyError, OverflowError, AttributeError) as failure:
        raise InvalidModel(
            f"The file holds no complete pickle ({shown(str(failure))}); upload it again.",
            code="damaged_file",
        ) from failure
    return tuple(opcodes)
