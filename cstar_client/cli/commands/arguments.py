"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from cstar_client.cli import parsing
from cstar_client.documents import Compression, Method, Norm, Profile

_PANEL = "How small"
_STRENGTH = "How robust"

JobId = Annotated[str, typer.Argument(metavar="JOB", help="Its id, or `latest`")]
Data = Annotated[
    str, typer.Option("--data", help="An .npz, a zip of class folders, or the id of a data set")
]
Ratio = Annotated[
    Any,
    typer.Option(
        "--ratio",
        parser=parsing.number,
        metavar="R",
        help="Parameters before / after",
        rich_help_panel=_PANEL,
    ),
]
MaxParams = Annotated[
    int | None, typer.Option(help="At most so many parameters", rich_help_panel=_PANEL)
]
MaxMacs = Annotated[
    int | None, typer.Option(help="At most so many MACs an image", rich_help_panel=_PANEL)
]
MaxBytes = Annotated[int | None, typer.Option(help="At most so large", rich_help_panel=_PANEL)]
MaxLatencyMs = Annotated[
    Any,
    typer.Option(
        parser=parsing.number,
        metavar="MS",
        help="At most so slow on the worker",
        rich_help_panel=_PANEL,
    ),
]
Epsilon = Annotated[
    Any,
    typer.Option(
        parser=parsing.number,
        metavar="E",
        help="Size of the attack in [0, 1] pixel space, e.g. 8/255",
        rich_help_panel=_STRENGTH,
    ),
]
NormName = Annotated[
    Norm, typer.Option("--norm", help="How the attack is measured", rich_help_panel=_STRENGTH)
]
MinAccuracy = Annotated[
    Any,
    typer.Option(
        parser=parsing.number,
        metavar="A",
        help="Accuracy to keep under AutoAttack",
        rich_help_panel=_STRENGTH,
    ),
]
MinCleanAccuracy = Annotated[
    Any,
    typer.Option(
        parser=parsing.number,
        metavar="A",
        help="Accuracy to keep unattacked",
        rich_help_panel=_STRENGTH,
    ),
]
Normalisation = Annotated[
    Any,
    typer.Option(
        parser=parsing.numbers,
        metavar="A,B,C",
        help="As the images were normalised in training: one number a channel",
    ),
]
ProfileName = Annotated[
    Profile, typer.Option("--profile", help="How much is trained: quick is for trials")
]
MethodName = Annotated[
    Method, typer.Option("--method", help="cstar, or what it is compared with (docs/api.md)")
]
Architecture = Annotated[
    str, typer.Option("--architecture", help="Of a checkpoint: a name, or auto")
]
Evaluation = Annotated[
    list[str] | None,
    typer.Option(
        "--evaluation", metavar="NAME=VALUE", help="Test examples, e.g. autoattack_examples=128"
    ),
]
ModelSource = Annotated[
    str, typer.Argument(help="A checkpoint (.pt, .pth, .safetensors), or the id of a model")
]
MaxRuntime = Annotated[int | None, typer.Option(metavar="SECONDS", help="Then it fails")]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="NAME=VALUE", help="For finding it again; may be repeated"),
]
Key = Annotated[
    str | None,
    typer.Option(help="Sent again with the same key within a day, nothing more is created"),
]
Wait = Annotated[bool, typer.Option("--wait", help="Watch it, and end as it ends (exit codes)")]
Timeout = Annotated[
    Any,
    typer.Option(parser=parsing.number, metavar="SECONDS", help="Watch no longer; the job goes on"),
]
Limit = Annotated[int, typer.Option(min=1, help="At most so many rows")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Folder, or name of the file")]


def compression(
    ratio: float | None,
    max_params: int | None,
    max_macs: int | None,
    max_bytes: int | None,
    max_latency_ms: float | None,
) -> Compression:
    """Return the limits that were given; there must be one."""
    limits = {
        "ratio": ratio,
        "max_params": max_params,
        "max_macs": max_macs,
        "max_bytes": max_bytes,
        "max_latency_ms": max_latency_ms,
    }
    given = {name: value for name, value in limits.items() if value is not None}
    if not given:
        raise typer.BadParameter("say how small it must become, e.g. --ratio 4")
    return cast(Compression, given)
