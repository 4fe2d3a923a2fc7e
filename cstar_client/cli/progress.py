"""Bars on stderr for what takes a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from cstar_client.downloads import OnProgress


@contextmanager
def transfers(console: Console) -> Iterator[Callable[[str], OnProgress]]:
    """Yield a function that makes a bar for a name; outside a terminal nothing is shown."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:

        def bar(name: str) -> OnProgress:
            task = bars.add_task(name, total=None)
            return lambda done, total: bars.update(task, completed=done, total=total)

        yield bar
