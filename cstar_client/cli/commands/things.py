"""`cstar upload`, `models`, `architectures`, `datasets` and `workers`: what jobs are made of."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from cstar_client.cli import parsing
from cstar_client.cli.commands import arguments
from cstar_client.cli.progress import transfers
from cstar_client.cli.session import Session, command
from cstar_client.cli.tables import DEFAULT_ROWS, details, field, listing
from cstar_client.documents import Dataset, Model, Purpose
from cstar_client.resources.models import Architecture

OF_DATA = {".npz", ".zip"}
MODEL_FIELDS = (
    "id",
    "name",
    "version",
    "aliases",
    "status",
    "architecture",
    "parameters",
    "macs",
    "parent_model_id",
    "job_id",
    "reasons",
)
DATASET_FIELDS = ("id", "name", "status", "num_examples", "shape", "num_classes", "reasons")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    models, datasets = typer.Typer(help="Checkpoints."), typer.Typer(help="Images with labels.")
    app.add_typer(models, name="models", no_args_is_help=True)
    app.add_typer(datasets, name="datasets", no_args_is_help=True)
    command(app, "upload", examples=["cstar upload resnet20.pth", "cstar upload cifar10.npz"])(
        upload
    )
    command(app, "architectures")(architectures)
    command(app, "workers")(workers)
    command(models, "ls")(list_models)
    command(models, "get")(get_model)
    command(
        models,
        "create",
        examples=[
            "cstar models create resnet20.pth --data cifar10.npz \\",
            "    --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
        ],
    )(create_model)
    command(models, "alias", examples=["cstar models alias mdl_... production"])(alias_model)
    command(models, "register", examples=["cstar models register latest"])(register_model)
    command(models, "rm")(remove_model)
    command(datasets, "ls")(list_datasets)
    command(datasets, "get")(get_dataset)
    command(datasets, "create", examples=["cstar datasets create cifar10.npz"])(create_dataset)


def upload(
    session: Session,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    kind: Annotated[
        Purpose | None, typer.Option("--as", help="What it is, if its suffix does not tell")
    ] = None,
) -> None:
    """Upload a file and print its id. Interrupted, it goes on when it is called again."""
    purpose: Purpose = kind or ("dataset" if file.suffix in OF_DATA else "checkpoint")
    with transfers(session.err) as bar:
        made = session.client.files.upload(file, purpose=purpose, on_progress=bar(file.name))
    session.write(made, made["id"])


def architectures(session: Session) -> None:
    """List what `--architecture` can name in place of `auto`."""
    columns = [(name, field(name)) for name in ("name", "parameters", "arguments", "summary")]
    listing(session, session.client.architectures.list(), columns)


def workers(session: Session) -> None:
    """List the workers of the service."""
    columns = [(name, field(name)) for name in ("id", "hostname", "queues", "last_seen_at")]
    listing(session, session.client.workers.list(), columns)


def list_models(session: Session, limit: arguments.Limit = DEFAULT_ROWS) -> None:
    """List the models, newest first."""
    columns = [
        (n, field(n))
        for n in ("id", "name", "version", "aliases", "status", "parameters", "created_at")
    ]
    listing(session, islice(session.client.models.list(), limit), columns)


def get_model(session: Session, model: str) -> None:
    """Show a model."""
    details(session, session.client.models.get(model), MODEL_FIELDS)


def create_model(
    session: Session,
    *,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    data: arguments.Data,
    mean: arguments.Normalisation,
    std: arguments.Normalisation,
    name: str | None = None,
    architecture: arguments.Architecture = "auto",
) -> None:
    """Upload a checkpoint, wait until it is validated, and print the model's id."""
    dataset = the_dataset(session, data)
    normalisation = {"mean": mean, "std": std}
    made = new_model(session, file, dataset, normalisation, name=name, architecture=architecture)
    session.write(made, made["id"])


def alias_model(session: Session, model: str, alias: str) -> None:
    """Let NAME@ALIAS stand for a model, wherever it pointed before."""
    set_to = session.client.models.set_alias(model, alias)
    session.write(set_to, f"{set_to['name']}@{set_to['alias']} is {set_to['model_id']}")


def register_model(
    session: Session,
    job: arguments.JobId,
    name: Annotated[str | None, typer.Option(help="Else that of the model it came from")] = None,
) -> None:
    """Make a model of what a compression left, and print its id."""
    made = session.client.jobs.register(session.job(job), name=name)
    session.say(f"{made['name']} version {made['version']}")
    session.write(made, made["id"])


def remove_model(session: Session, model: str) -> None:
    """Delete a model that nothing uses."""
    session.client.models.delete(model)
    session.write({"id": model, "deleted": True}, f"{model} deleted")


def list_datasets(session: Session, limit: arguments.Limit = DEFAULT_ROWS) -> None:
    """List the data sets, newest first."""
    columns = [(n, field(n)) for n in ("id", "name", "status", "num_examples", "created_at")]
    listing(session, islice(session.client.datasets.list(), limit), columns)


def get_dataset(session: Session, dataset: str) -> None:
    """Show a data set."""
    details(session, session.client.datasets.get(dataset), DATASET_FIELDS)


def create_dataset(
    session: Session, file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)]
) -> None:
    """Upload images with labels, wait until they are validated, and print the data set's id."""
    made = the_dataset(session, str(file))
    session.write(made, made["id"])


def the_dataset(session: Session, data: str) -> Dataset:
    """Return the ready data set that `--data` names: a file to be uploaded, or an id."""
    path = parsing.existing(data, "dts_")
    if path is None:
        return session.client.datasets.wait(data)
    with transfers(session.err) as bar:
        made = session.client.datasets.upload(path, on_progress=bar(path.name))
    session.say(f"data set {made['id']} is ready")
    return made


def new_model(
    session: Session,
    path: Path,
    dataset: Dataset,
    normalisation: dict[str, Any],
    *,
    name: str | None = None,
    architecture: str = "auto",
) -> Model:
    """Return the ready model of a checkpoint that is uploaded."""
    named: Architecture = "auto" if architecture == "auto" else {"name": architecture}
    with transfers(session.err) as bar:
        made = session.client.models.upload(
            path,
            dataset,
            name=name,
            architecture=named,
            on_progress=bar(path.name),
            **normalisation,
        )
    known = (made["architecture"] or {}).get("name")
    session.say(f"model {made['id']} is ready: {known}, {made['parameters']:,} parameters")
    return made
