"""The root of the `cstar` command."""

from __future__ import annotations

import typer

from cstar_client.cli.commands import access, jobs, plans, server, sweeps, things

app = typer.Typer(
    name="cstar",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root() -> None:
    """Make a trained CNN several times smaller and keep it robust.

    From nothing to a compressed model:

        cstar up --detach
        cstar jobs submit resnet20.pth --data cifar10.npz --ratio 4 \\
            --epsilon 8/255 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
        cstar jobs watch latest
        cstar download latest

    Where the service is and with which key: `--url` and `--api-key`, `CSTAR_URL` and
    `CSTAR_API_KEY`, `~/.config/cstar/config.toml` (`url = "..."`, `api_key = "..."`), or the
    stack that runs in this folder, in this order.

    What gets no answer is tried again for `--patience` seconds (60) after it first failed, but no
    longer than `--timeout`; stderr says so.

    Exit codes:

          0  done; with --wait: the job succeeded and every target is met
          1  refused by the service, no connection, or a rejected upload
          2  the command line is wrong
          3  the job failed
          4  the job succeeded and misses a target
          5  the job was cancelled
          6  the time of --timeout is over; the job goes on
        130  interrupted by Ctrl-C; the job goes on
    """


things.register(app)
plans.register(app)
jobs.register(app)
sweeps.register(app)
access.register(app)
server.register(app)


def main() -> None:
    """Run the command."""
    app()
