"""`cstar plan`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cstar_client.cli.commands import arguments
from cstar_client.cli.session import Session, command
from cstar_client.documents import Plan


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(
        app,
        "plan",
        examples=["cstar plan mdl_... --ratio 8", "cstar plan mdl_... --max-latency-ms 1.5"],
    )(plan)


def plan(
    session: Session,
    *,
    model: Annotated[str, typer.Argument(help="The id of a model")],
    ratio: arguments.Ratio = None,
    max_params: arguments.MaxParams = None,
    max_macs: arguments.MaxMacs = None,
    max_bytes: arguments.MaxBytes = None,
    max_latency_ms: arguments.MaxLatencyMs = None,
    profile: arguments.ProfileName = "quick",
) -> None:
    """Show the ranks a job would choose among, in seconds; nothing is trained."""
    compression = arguments.compression(ratio, max_params, max_macs, max_bytes, max_latency_ms)
    asked = session.client.plans.create(model, compression, profile=profile)
    ready = session.client.plans.wait(asked)
    session.write(ready, lambda console: _show(console, ready))


def _show(console: Console, ready: Plan) -> None:
    chosen = ready["plan"] or {}
    layers = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("layer", "ranks", "parameters", "before", "MACs", "before", "note"):
        layers.add_column(heading, justify="left" if heading in ("layer", "note") else "right")
    for layer in chosen["layers"]:
        layers.add_row(
            layer["name"],
            " x ".join(map(str, layer["ranks"] or ())),
            *(f"{layer[key]:,}" for key in ("parameters", "dense_parameters")),
            *(f"{layer[key]:,}" for key in ("macs", "dense_macs")),
            layer["reason"],
        )
    console.print(layers)
    latency = f", {chosen['latency_ms']:.2f} ms" if chosen["latency_ms"] is not None else ""
    console.print(
        f"{chosen['name']}: {chosen['parameters']:,} parameters ({chosen['ratio']:.2f}x smaller), "
        f"{chosen['macs']:,} MACs{latency} on {ready['device']}"
    )
    others = [one["name"] for one in ready["candidates"] if one["name"] != chosen["name"]]
    if others:
        console.print(f"other candidates: {', '.join(others)}")
