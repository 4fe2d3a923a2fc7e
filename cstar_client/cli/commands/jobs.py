"""`cstar jobs`, `evaluate` and `download`."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console

from cstar_client.cli import exits, parsing
from cstar_client.cli.commands import arguments
from cstar_client.cli.commands.things import new_model, the_dataset
from cstar_client.cli.exits import Exit
from cstar_client.cli.narration import line
from cstar_client.cli.progress import transfers
from cstar_client.cli.results import print_result
from cstar_client.cli.session import Session, command
from cstar_client.cli.tables import DEFAULT_ROWS, field, listing
from cstar_client.cli.watching import watch
from cstar_client.documents import Artifact, Job, JobFields
from cstar_client.downloads import file_name
from cstar_client.errors import JobCancelled, JobFailed, NothingLeft

SUBMIT = [
    "cstar jobs submit resnet20.pth --data cifar10.npz --ratio 4 \\",
    "    --epsilon 8/255 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
    "cstar jobs submit mdl_... --data dts_... --max-latency-ms 2 \\",
    "    --epsilon 8/255 --min-accuracy 0.3 --profile paper --wait --json",
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    jobs = typer.Typer(help="Compressions and evaluations.")
    app.add_typer(jobs, name="jobs", no_args_is_help=True)
    command(jobs, "submit", examples=SUBMIT)(submit)
    command(jobs, "ls", examples=["cstar jobs ls --state running"])(list_jobs)
    command(jobs, "get")(get)
    command(jobs, "watch", examples=["cstar jobs watch latest"])(watch_job)
    command(jobs, "logs", examples=["cstar jobs logs latest --tail 50"])(logs)
    for action in (cancel, pause, resume, retry):
        command(jobs, action.__name__)(action)
    command(
        app,
        "evaluate",
        examples=["cstar evaluate mdl_... --data dts_... --epsilon 8/255 --wait"],
    )(evaluate)
    command(
        app,
        "download",
        examples=[
            "cstar download latest -o compressed",
            "cstar download job_... --only report_html",
            "cstar download file_... -o copy.pth",
        ],
    )(download)


def submit(
    session: Session,
    *,
    model: arguments.ModelSource,
    data: arguments.Data,
    epsilon: arguments.Epsilon,
    ratio: arguments.Ratio = None,
    max_params: arguments.MaxParams = None,
    max_macs: arguments.MaxMacs = None,
    max_bytes: arguments.MaxBytes = None,
    max_latency_ms: arguments.MaxLatencyMs = None,
    norm: arguments.NormName = "linf",
    min_accuracy: arguments.MinAccuracy = None,
    min_clean_accuracy: arguments.MinCleanAccuracy = None,
    mean: arguments.Normalisation = None,
    std: arguments.Normalisation = None,
    architecture: arguments.Architecture = "auto",
    profile: arguments.ProfileName = "quick",
    method: arguments.MethodName = "cstar",
    seed: int = 0,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Depart from the profile, e.g. admm_epochs=12"),
    ] = None,
    evaluation: arguments.Evaluation = None,
    label: arguments.Labels = None,
    priority: int = 0,
    max_runtime: arguments.MaxRuntime = None,
    idempotency_key: arguments.Key = None,
    wait: arguments.Wait = False,
    timeout: arguments.Timeout = None,
) -> Exit | None:
    """Compress a model and print the job's id; files are uploaded first.

    Give at least one limit on the size. Of a checkpoint, --mean and --std are needed too: how the
    images were normalised in training.
    """
    compression = arguments.compression(ratio, max_params, max_macs, max_bytes, max_latency_ms)
    source = _source(model, mean, std)
    dataset = the_dataset(session, data)
    if source is not None:
        normalisation = {"mean": mean, "std": std}
        made = new_model(session, source, dataset, normalisation, architecture=architecture)
        model = made["id"]
    fields = _fields(seed, evaluation, label, priority, max_runtime)
    fields |= {"profile": profile, "method": method, "options": parsing.options(option or ())}
    job = session.client.jobs.submit(
        model,
        dataset,
        compression=compression,
        epsilon=epsilon,
        norm=norm,
        min_accuracy=min_accuracy,
        min_clean_accuracy=min_clean_accuracy,
        idempotency_key=idempotency_key,
        **cast(JobFields, fields),
    )
    return _submitted(session, job, wait=wait, timeout_s=timeout)


def evaluate(
    session: Session,
    *,
    model: arguments.ModelSource,
    data: arguments.Data,
    epsilon: arguments.Epsilon,
    baseline: Annotated[str | None, typer.Option(help="The id of a model to compare with")] = None,
    norm: arguments.NormName = "linf",
    min_accuracy: arguments.MinAccuracy = None,
    min_clean_accuracy: arguments.MinCleanAccuracy = None,
    mean: arguments.Normalisation = None,
    std: arguments.Normalisation = None,
    architecture: arguments.Architecture = "auto",
    seed: int = 0,
    evaluation: arguments.Evaluation = None,
    label: arguments.Labels = None,
    priority: int = 0,
    max_runtime: arguments.MaxRuntime = None,
    idempotency_key: arguments.Key = None,
    wait: arguments.Wait = False,
    timeout: arguments.Timeout = None,
) -> Exit | None:
    """Judge a model as it is: nothing is compressed or trained."""
    source = _source(model, mean, std)
    dataset = the_dataset(session, data)
    if source is not None:
        normalisation = {"mean": mean, "std": std}
        model = new_model(session, source, dataset, normalisation, architecture=architecture)["id"]
    job = session.client.jobs.evaluate(
        model,
        dataset,
        epsilon=epsilon,
        norm=norm,
        min_accuracy=min_accuracy,
        min_clean_accuracy=min_clean_accuracy,
        baseline=baseline,
        idempotency_key=idempotency_key,
        **cast(JobFields, _fields(seed, evaluation, label, priority, max_runtime)),
    )
    return _submitted(session, job, wait=wait, timeout_s=timeout)


def list_jobs(
    session: Session,
    state: Annotated[str | None, typer.Option(help="Only jobs in this state")] = None,
    model: Annotated[str | None, typer.Option(help="Only jobs of this model")] = None,
    limit: arguments.Limit = DEFAULT_ROWS,
) -> None:
    """List the jobs, newest first."""
    found = session.client.jobs.list(state=state, model=model)
    columns = [
        ("id", field("id")),
        ("kind", field("kind")),
        ("status", field("status")),
        ("phase", field("phase")),
        ("done", lambda job: f"{job['progress']:.0%}"),
        ("created", field("created_at")),
    ]
    listing(session, islice(found, limit), columns)


def get(session: Session, job: arguments.JobId) -> None:
    """Show a job, and its result once it has one."""
    found = session.job(job)
    session.write(found, lambda console: _show(console, found))


def watch_job(
    session: Session, job: arguments.JobId, timeout: arguments.Timeout = None
) -> Exit | None:
    """Watch a job until it ends; with --json, its events as they happen, one a line.

    The exit code is that of the job. Ctrl-C stops watching and leaves the job running.
    """
    found = session.job(job)
    if not session.as_json:
        return _watched(session, found, timeout_s=timeout)
    return _told(session, found, timeout_s=timeout)


def logs(
    session: Session,
    job: arguments.JobId,
    tail: Annotated[int | None, typer.Option(min=1, help="Only so many last lines")] = None,
) -> None:
    """Print the logs of all attempts."""
    found = session.job(job)
    text = session.client.jobs.logs(found, tail=tail)
    session.write({"job_id": found["id"], "logs": text}, text.rstrip("\n"))


def cancel(session: Session, job: arguments.JobId) -> None:
    """Cancel a job."""
    _acted(session, session.client.jobs.cancel(session.job(job)))


def pause(session: Session, job: arguments.JobId) -> None:
    """Pause a job; it keeps what it has done."""
    _acted(session, session.client.jobs.pause(session.job(job)))


def resume(session: Session, job: arguments.JobId) -> None:
    """Queue a paused job again."""
    _acted(session, session.client.jobs.resume(session.job(job)))


def retry(
    session: Session,
    job: arguments.JobId,
    wait: arguments.Wait = False,
    timeout: arguments.Timeout = None,
) -> Exit | None:
    """Make a new job of one that failed or was cancelled, and print its id."""
    made = session.client.jobs.retry(session.job(job))
    return _submitted(session, made, wait=wait, timeout_s=timeout)


def download(
    session: Session,
    source: Annotated[str, typer.Argument(help="A job's id, `latest`, or a file's id")],
    output: arguments.Output = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Only this kind, e.g. checkpoint; may be repeated")
    ] = None,
) -> None:
    """Download what a job left into a folder of its name, every SHA-256 checked.

    Interrupted, it goes on where it was when it is called again.
    """
    if source.startswith("file_"):
        file = session.client.files.get(source)
        name = file_name(file["filename"], file["id"])
        target = output / name if output and output.is_dir() else output or Path(name)
        with transfers(session.err) as bar:
            session.client.files.download(file, target, on_progress=bar(target.name))
        session.write({"files": [str(target)]}, str(target))
        return
    job = session.job(source)
    folder = output or Path(job["id"])
    paths = _save(session, job, folder, only or [])
    session.write({"job_id": job["id"], "files": paths}, "\n".join(paths))


def _say_why_nothing_is_left(job: Job) -> None:
    if job["status"] == "cancelled":
        raise JobCancelled(job)
    if job["status"] == "failed":
        raise JobFailed(job)
    if job["status"] != "succeeded":
        raise NothingLeft(job)


def _save(session: Session, job: Job, folder: Path, only: list[str]) -> list[str]:
    artifacts: list[Artifact] = list(session.client.jobs.artifacts(job))
    if not artifacts:
        _say_why_nothing_is_left(job)
    kinds = sorted({artifact["kind"] for artifact in artifacts})
    if unknown := set(only) - set(kinds):
        words = f"{', '.join(sorted(unknown))}; {job['id']} has {', '.join(kinds) or 'nothing yet'}"
        raise typer.BadParameter(f"no artifact of kind {words}")
    folder.mkdir(parents=True, exist_ok=True)
    with transfers(session.err) as bar:
        return [
            str(session.client.jobs.download(one, folder, on_progress=bar(one["filename"])))
            for one in artifacts
            if not only or one["kind"] in only
        ]


def _source(model: str, mean: Any, std: Any) -> Path | None:
    """Return the checkpoint to be uploaded, None for the id of a model."""
    path = parsing.existing(model, "mdl_")
    if path is not None and (mean is None or std is None):
        raise typer.BadParameter(
            f"{model} is a checkpoint: say with --mean and --std how its images were normalised "
            "(ImageNet: --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225; not at all: 0 and 1)"
        )
    return path


def _fields(
    seed: int,
    evaluation: list[str] | None,
    label: list[str] | None,
    priority: int,
    max_runtime: int | None,
) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "seed": seed,
        "labels": parsing.pairs(label or ()),
        "priority": priority,
        "max_runtime_s": max_runtime,
    }
    return fields | ({"evaluation": parsing.options(evaluation)} if evaluation else {})


def _submitted(session: Session, job: Job, *, wait: bool, timeout_s: float | None) -> Exit | None:
    if wait:
        session.say(f"submitted {job['id']}")
        return _watched(session, job, timeout_s=timeout_s)
    session.write(job, job["id"])
    if not session.as_json:
        session.say(f"`cstar jobs watch {job['id']}` shows how it goes")
    return None


def _watched(session: Session, job: Job, *, timeout_s: float | None) -> Exit:
    try:
        ended = watch(session.client, job, session.err, timeout_s=timeout_s)
    except KeyboardInterrupt:
        session.say(
            f"{job['id']} keeps running: `cstar jobs watch {job['id']}` to look again, "
            f"`cstar jobs cancel {job['id']}` to stop it"
        )
        return Exit.INTERRUPTED
    session.write(ended, lambda console: _show(console, ended))
    if ended["status"] == "succeeded" and not session.as_json:
        session.say(f"`cstar download {ended['id']}` fetches what it left")
    return exits.of_job(ended)


def _told(session: Session, job: Job, *, timeout_s: float | None) -> Exit:
    last = 0

    def tell(_: Job) -> None:
        nonlocal last
        for event in session.client.jobs.events(job, after=last, live=False):
            last = event["seq"]
            session.write(event, line(event))

    return exits.of_job(
        session.client.jobs.wait(job, timeout_s=timeout_s, on_update=tell, check=False)
    )


def _acted(session: Session, job: Job) -> None:
    session.write(job, f"{job['id']} {job['status']}")


def _show(console: Console, job: Job) -> None:
    phase = f", {job['phase']}, {job['progress']:.0%}" if job["status"] == "running" else ""
    console.print(f"{job['id']} {job['status']}{phase}")
    if job["error"]:
        console.print(f"{job['error']['code']}: {job['error']['message']}", markup=False)
    if job["result"]:
        print_result(console, job["result"])
