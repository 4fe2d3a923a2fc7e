"""What `cstar` finds of this package: the entry points of the group `cstar.commands`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stack.__main__ import main

Command = Callable[[Sequence[str]], int]


def demo(arguments: Sequence[str]) -> int:
    """Run the demo."""
    from stack.demo.__main__ import main as run  # noqa: PLC0415  (it needs torch)

    return run(arguments)


def _of_main(name: str) -> Command:
    return lambda arguments: main([name, *arguments])


up, down = _of_main("up"), _of_main("down")
doctor = _of_main("doctor")
backup, restore = _of_main("backup"), _of_main("restore")
