"""Which globals a pickle would import, found by reading its opcodes and running none of them."""

from __future__ import annotations

from collections.abc import Iterable

from cstar_core.files.pickle_opcodes import Opcode

UNRESOLVED = "<computed name>"

_EXTENSIONS = {"EXT1", "EXT2", "EXT4"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}


def pickle_globals(opcodes: Iterable[Opcode]) -> frozenset[str]:
    """Dotted names of every global in a pickle, `UNRESOLVED` for one built at run time."""
    scanner = _Scanner()
    for opcode, argument in opcodes:
        scanner.see(opcode, argument)
    return frozenset(scanner.found)


class _Scanner:
    """Follows just enough of the pickle machine to name the operands of STACK_GLOBAL.

    Only strings matter: `recent` has the values pushed last, None for anything else. A name that
    cannot be followed is reported as `UNRESOLVED`, which no allow-list holds.
    """

    def __init__(self) -> None:
        self.found: set[str] = set()
        self.recent: list[str | None] = [None, None]
        self.memo: dict[int, str | None] = {}

    def see(self, opcode: str, argument: object) -> None:
        if opcode in ("GLOBAL", "INST"):
            self.found.add(str(argument).replace(" ", "."))
            self._push(None)
        elif opcode == "STACK_GLOBAL":
            module, name = self.recent
            self.found.add(f"{module}.{name}" if module and name else UNRESOLVED)
            self._push(None)
        elif opcode in _EXTENSIONS:
            self.found.add(UNRESOLVED)
            self._push(None)
        elif opcode == "MEMOIZE":
            self.memo[len(self.memo)] = self.recent[-1]
        elif opcode in _PUTS and isinstance(argument, int):
            self.memo[argument] = self.recent[-1]
        elif opcode in _GETS and isinstance(argument, int):
            self._push(self.memo.get(argument))
        else:
            self._push(argument if isinstance(argument, str) else None)

    def _push(self, value: str | None) -> None:
        self.recent = [self.recent[-1], value]
