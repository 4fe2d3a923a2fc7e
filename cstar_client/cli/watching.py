"""Watching a job: a live panel in a terminal, a line for each thing that happens elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import itemgetter

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table

from cstar_client.cli.narration import epoch_line, line
from cstar_client.client import Client
from cstar_client.documents import Job, Reference, identifier

REFRESH_HZ = 4
BAR_WIDTH = 40
# Known from the last phase that measured them, until the next one does.
LASTING = {"held_out_clean_accuracy", "held_out_robust_accuracy"}
FIGURES = (
    ("held_out_clean_accuracy", "clean accuracy", "{:.1%}, held out"),
    ("held_out_robust_accuracy", "robust accuracy", "{:.1%}, held out"),
    ("train_robust_accuracy", "robust, training", "{:.1%}"),
    ("admm_gap", "ADMM gap", "{:.4f}, goal 0.05"),
    ("loss", "loss", "{:.4f}"),
)


def watch(
    client: Client, job: Reference, console: Console, *, timeout_s: float | None = None
) -> Job:
    """Show what happens to a job until it has ended, and return it; raises Timeout."""
    view = _View(client, identifier(job), console)
    with _refreshing(view, console) as refresh:

        def see(version: Job) -> None:
            view.update(version)
            refresh()

        return client.jobs.wait(job, timeout_s=timeout_s, on_update=see, check=False)


@contextmanager
def _refreshing(view: _View, console: Console) -> Iterator[Callable[[], None]]:
    """Keep the panel on the screen and yield what draws it anew; without a terminal, nothing."""
    if not console.is_terminal:
        yield lambda: None
        return
    with Live(
        get_renderable=view.render, console=console, refresh_per_second=REFRESH_HZ, transient=True
    ) as live:
        yield live.refresh


@dataclass
class _View:
    """What was seen of a job so far."""

    client: Client
    job_id: str
    console: Console
    job: Job | None = None
    last_event: int = 0
    last_metric: int = 0
    phase: str = ""
    step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)

    def update(self, job: Job) -> None:
        """Take in a new version of the job and print what has happened since the last."""
        self.job = job
        news = [*self._events(), *self._epochs()]
        for _, text in sorted(news, key=itemgetter(0)):  # what is of one moment stays in order
            if text:
                self.console.print(text, highlight=False, markup=False)

    def render(self) -> RenderableType:
        """Return the panel."""
        return "" if self.job is None else panel(self.job, self.step, self.metrics)

    def _events(self) -> Iterator[tuple[str, str]]:
        """Yield when an event was and what to say of it."""
        for event in self.client.jobs.events(self.job_id, after=self.last_event, live=False):
            self.last_event = event["seq"]
            yield event["created_at"], line(event)

    def _epochs(self) -> Iterator[tuple[str, str]]:
        """Take in new metrics; yield when an epoch was over and what to say of it."""
        found = self.client.jobs.metrics(self.job_id, after=self.last_metric)
        for (phase, step), metrics in groupby(found, key=lambda one: (one["phase"], one["step"])):
            values: dict[str, float] = {}
            for metric in metrics:
                self.last_metric, ended_at = metric["seq"], metric["created_at"]
                values[metric["name"]] = metric["value"]
            is_new = (phase, step) != (self.phase, self.step)
            kept = LASTING if is_new else self.metrics
            self.metrics = {k: v for k, v in self.metrics.items() if k in kept} | values
            self.phase, self.step = phase, step
            if is_new and step:
                yield ended_at, epoch_line(step, values)


def panel(job: Job, step: int, metrics: Mapping[str, float]) -> RenderableType:
    """Return the picture of a job: where it is, and its figures."""
    head = Table.grid(padding=(0, 2))
    bar = ProgressBar(total=1.0, completed=job["progress"], width=BAR_WIDTH)
    head.add_row(job["phase"] or job["status"], bar, f"{job['progress']:.0%}", _clock(job))
    body = Table.grid(padding=(0, 2))
    for name, value in _rows(job, step, metrics):
        body.add_row(f"[dim]{name}[/dim]", value)
    what = " ".join(filter(None, (job["method"], job["profile"]))) or job["kind"]
    return Panel(
        Group(head, body),
        title=f"{job['id']}  {what}",
        subtitle="Ctrl-C leaves it running",
        expand=False,
    )


def _rows(job: Job, step: int, metrics: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    if job["status"] != "running":
        yield "status", job["status"]
    if job["queue_position"] is not None:
        yield "jobs before it", str(job["queue_position"])
    if job["notice"]:
        yield "notice", job["notice"]
    if job["attempt"] > 1:
        yield "attempt", str(job["attempt"])
    if step:
        yield "epoch", str(step)
    for key, name, form in FIGURES:
        if key in metrics:
            yield name, form.format(metrics[key])


def _clock(job: Job) -> str:
    left = f", {_span(job['eta_s'])} to go" if job["eta_s"] is not None else ""
    if job["started_at"] is None:
        return f"not started{left}"
    elapsed = datetime.now(UTC) - datetime.fromisoformat(job["started_at"])
    return f"{_span(elapsed.total_seconds())}{left}"


def _span(seconds: float) -> str:
    return str(timedelta(seconds=max(0, round(seconds))))
