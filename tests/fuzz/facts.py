"""What the hooks must know of the service: Schemathesis loads them in a process of its own."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from api.examples import EXAMPLES
from tests.fuzz.things import Ids, Things

VARIABLE = "CSTAR_FUZZ_FACTS"


@dataclass(frozen=True)
class Facts:
    """Ids that must stay, others by parameter name, and what ids of examples stand for.

    `url` and `key` are those of the tenant that has them.
    """

    url: str
    key: str
    kept: list[str]
    expendable: Ids
    examples: dict[str, str]


def write(path: Path, things: Things, *, url: str, key: str) -> None:
    """Leave the facts in a file for the hooks."""
    kept = [one for ids in things.kept.values() for one in ids]
    facts = Facts(url, key, kept, things.expendable, _meanings(things))
    path.write_text(json.dumps(asdict(facts)), "utf-8")


def read() -> Facts:
    """Return the facts of the file that `VARIABLE` names."""
    return Facts(**json.loads(Path(os.environ[VARIABLE]).read_text("utf-8")))


def _meanings(things: Things) -> dict[str, str]:
    """Return for each id in an example one of its kind that there is; files by their purpose."""
    checkpoint, images = things.kept["file_id"]
    return {
        EXAMPLES["ModelRequest"][0]["file_id"]: checkpoint,
        EXAMPLES["DatasetRequest"][0]["file_id"]: images,
        EXAMPLES["JobRequest"][0]["model_id"]: things.kept["model_id"][0],
        EXAMPLES["JobRequest"][0]["dataset_id"]: things.kept["dataset_id"][0],
    }
