"""Commands that the service's own package brings: `cstar up` and what else runs on a server.

It registers them as entry points of the group `cstar.commands`, each a function of the arguments
that returns the exit status; this package imports none of it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points

import typer

from cstar_client.cli.exits import Exit

GROUP = "cstar.commands"
COMMANDS = {
    "up": "Start a whole stack on this machine; with --detach, go on in the background.",
    "down": "Stop the stack that `up --detach` left running.",
    "demo": "Compress a small network through a stack of its own, and check the result.",
    "doctor": "Say whether this machine can run the service.",
    "backup": "Save the database and all blobs.",
    "restore": "Bring a backup into an empty place.",
}
MISSING = (
    "`cstar {name}` belongs to the service, which is not installed here. In a checkout of it: "
    "`make up`, or `pip install -c constraints.txt '.[demo]'`. "
    "To use a service that runs elsewhere, set CSTAR_URL and CSTAR_API_KEY."
)


def register(app: typer.Typer) -> None:
    """Add the commands, whether or not the service is installed."""
    for name, text in COMMANDS.items():
        app.command(
            name,
            help=text,
            rich_help_panel="On a server",
            add_help_option=False,
            context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        )(_delegating(name))


def _delegating(name: str) -> Callable[[typer.Context], None]:
    def run(context: typer.Context) -> None:
        found = list(entry_points(group=GROUP, name=name))
        if not found:
            typer.echo(MISSING.format(name=name), err=True)
            raise typer.Exit(Exit.ERROR)
        raise typer.Exit(found[0].load()(context.args))

    return run
