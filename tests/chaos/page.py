"""The rows of the long campaigns as cells of a table and as a Markdown page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

COLUMNS = (
    "broker",
    "database",
    "jobs",
    "kills",
    "attempts",
    "succeeded",
    "lost",
    "overlaps",
    "wrong",
    "steps/ideal",
    "seconds",
)
INTRODUCTION = """# Chaos

`make chaos`: jobs go in over HTTP while processes of the stack are killed by SIGKILL at seeded
times (`tests/chaos/`). Small jobs are chains of hashes that resume from checkpoints; the real ones
compress the demo's network. *Lost*: did not succeed exactly once. *Overlaps*: pairs of processes
that worked on one job at the same time, by the stamps they wrote outside the database. *Wrong*:
result or artifact differs by a bit from that of an undisturbed job, or the events have a gap.
*Steps/ideal*: steps begun by the small jobs, by those that would have been enough. Kills, in this
order: worker with all below it, worker's main process, pool process, runner, broker with its queue,
scheduler, API.
"""
KINDS = (
    "worker_group",
    "worker_parent",
    "pool_process",
    "runner",
    "broker",
    "scheduler",
    "api",
)


def cells(row: dict[str, Any]) -> list[str]:
    """Return a row in words, in the order of COLUMNS."""
    kills = [row["kills"].get(kind, 0) for kind in KINDS]
    return [
        *(row["broker"], row["database"], str(row["jobs"])),
        f"{sum(kills)} ({'+'.join(str(count) for count in kills)})",
        *(str(row["attempts"]), str(row["succeeded"]), str(len(row["lost"]))),
        *(str(len(row["overlaps"])), str(len(row["wrong"]) + len(row["gaps"]))),
        *(f"{row['steps_per_ideal']:.2f}", f"{row['seconds']:.0f}"),
    ]


def write_page(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the page beside the JSON."""
    lines = [INTRODUCTION, "| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in rows]
    path.write_text("\n".join([*lines, "", _compressed(rows), "", *_circumstances(rows)]) + "\n")


def _compressed(rows: list[dict[str, Any]]) -> str:
    digests = {digest for row in rows for digest in row["compressed"]}
    total = sum(len(row["compressed"]) for row in rows)
    return (
        f"{total} real compressions among them, of one request: {len(digests)} distinct "
        f"`model.safetensors` ({', '.join(sorted(digest[:12] for digest in digests))})."
    )


def _circumstances(rows: list[dict[str, Any]]) -> list[str]:
    """Return a line for every set of circumstances under which rows were found."""
    told: dict[str, list[str]] = {}
    for row in rows:
        libraries = ", ".join(f"{name} {number}" for name, number in row["libraries"].items())
        words = (
            f"seed {row['seed']}, commit {row['commit']}, Python {row['python']}, {libraries}; "
            f"{row['hardware']}"
        )
        told.setdefault(words, []).append(f"{' with '.join(row['servers'])}")
    return [f"- {words}: {'; '.join(servers)}." for words, servers in told.items()]
