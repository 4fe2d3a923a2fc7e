"""`cstar sweep` and `cstar pareto`."""

from __future__ import annotations

from typing import Annotated, cast

import typer
from rich.console import Console
from rich.table import Table

from cstar_client.cli import parsing
from cstar_client.cli.commands import arguments
from cstar_client.cli.commands.things import the_dataset
from cstar_client.cli.exits import Exit
from cstar_client.cli.session import Session, command
from cstar_client.documents import Axis, Pareto, ParetoPoint, Profile, Sweep

ENDS = {"succeeded": Exit.OK, "cancelled": Exit.JOB_CANCELLED}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(
        app,
        "sweep",
        examples=["cstar sweep mdl_... --data dts_... --ratios 2,4,8 --epsilon 8/255 --wait"],
    )(sweep)
    command(app, "pareto", examples=["cstar pareto mdl_...", "cstar pareto swp_... --json"])(pareto)


def sweep(
    session: Session,
    *,
    model: Annotated[str, typer.Argument(help="The id of a model, or name@alias")],
    data: arguments.Data,
    epsilon: arguments.Epsilon,
    ratios: Annotated[
        object,
        typer.Option(parser=parsing.numbers, metavar="A,B,...", help="A job for each ratio"),
    ],
    profile: Annotated[
        list[str] | None, typer.Option(help="A job for each; may be repeated")
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="A job for each; may be repeated")] = None,
    norm: arguments.NormName = "linf",
    label: arguments.Labels = None,
    idempotency_key: arguments.Key = None,
    wait: arguments.Wait = False,
    timeout: arguments.Timeout = None,
) -> Exit | None:
    """Compress a model to several sizes: one job each, and one frontier; prints the sweep's id."""
    made = session.client.sweeps.create(
        model,
        the_dataset(session, data),
        epsilon=epsilon,
        ratios=cast(list[float], ratios),
        profiles=cast(list[Profile], profile or []),
        seeds=seed or (),
        norm=norm,
        idempotency_key=idempotency_key,
        labels=parsing.pairs(label or ()),
    )
    if not wait:
        session.write(made, made["id"])
        return None
    ended = session.client.sweeps.wait(
        made, timeout_s=timeout, on_update=lambda seen: session.say(_line(seen))
    )
    session.write(ended, _line(ended))
    return ENDS.get(ended["status"], Exit.JOB_FAILED)


def pareto(
    session: Session,
    of: Annotated[str, typer.Argument(help="The id of a model or of a sweep, or name@alias")],
    axis: Annotated[
        list[str] | None, typer.Option(help="What to compare on; may be repeated")
    ] = None,
) -> None:
    """Show what the compressions of a model came to, and which of them are on the front."""
    client = session.client
    source = client.sweeps if of.startswith("swp_") else client.models
    found = source.pareto(of, axes=cast(list[Axis], axis or []))
    session.write(found, lambda console: _show(console, found))


def _line(seen: Sweep) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in seen["counts"].items())
    return f"{seen['id']} {seen['status']}, {seen['progress']:.0%}: {counts}"


def _show(console: Console, found: Pareto) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    headings = ("", "network", "ratio", "parameters", "MACs", "bytes", "ms", "clean", "robust")
    for heading in headings:
        is_name = heading in ("", "network")
        table.add_column(heading, justify="left" if is_name else "right", no_wrap=is_name)
    for point in sorted(found["data"], key=lambda one: -(one["parameters"] or 0)):
        table.add_row(*_cells(point))
    console.print(table)
    console.print(f"* on the front of {', '.join(found['axes'])}")


def _cells(point: ParetoPoint) -> list[str]:
    sizes = (point["parameters"], point["macs"], point["bytes"])
    accuracies = (point["clean_accuracy"], point["robust_accuracy"])
    return [
        "*" if point["on_front"] else "",
        "as uploaded" if point["kind"] == "dense" else point["job_id"],
        "" if point["ratio"] is None else f"{point['ratio']:.2f}",
        *("" if size is None else f"{size:,}" for size in sizes),
        "" if point["latency_ms"] is None else f"{point['latency_ms']:.2f}",
        *("" if one is None else f"{one['value']:.1%}" for one in accuracies),
    ]
