"""`make chaos`: the long campaigns, on every broker and database; a table, JSON and a page.

`python -m tests.chaos --brokers redis --databases sqlite` runs a part and renews its rows alone.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine import commit, hardware, load_average
from store.database import Database
from store.migrate import upgrade
from tests.chaos.campaign import Campaign, Plan
from tests.chaos.page import COLUMNS, cells, write_page
from tests.support import brokers, postgres

DATABASES = ["sqlite", "postgresql"]
LIBRARIES = ("celery", "kombu", "redis", "sqlalchemy", "psycopg", "torch")
RESULTS = Path("benchmarks/results/chaos.json")


def main() -> None:
    """Run the campaigns that are asked for; the exit status is 1 when one was not clean."""
    arguments = _arguments()
    found: list[dict[str, Any]] = []
    for broker_name in arguments.brokers:
        for database_name in arguments.databases:
            row = campaign(broker_name, database_name, arguments)
            found.append(row)
            _keep(arguments.json, row)
    _show(found)
    sys.exit(not all(row["clean"] for row in found))


def campaign(broker_name: str, database_name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one campaign and return its row of the table."""
    plan = Plan(
        seed=arguments.seed,
        jobs=arguments.jobs,
        kills=arguments.kills,
        step_s=0.1,
        gap_s=(0.2, 2.5),
        compressions=arguments.compressions,
    )
    with tempfile.TemporaryDirectory() as name, _database(database_name, Path(name)) as database:
        data_dir = Path(name) / "data"
        with brokers.broker(broker_name, data_dir) as broker:
            broker.start()
            servers = [broker.version(), _server_version(database)]
            tally = Campaign(plan, broker, database, data_dir).run()
    facts = {"broker": broker_name, "database": database_name, "servers": servers}
    return {**facts, **tally.as_json(), "clean": tally.clean, **_circumstances(plan.seed)}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--brokers", nargs="+", choices=brokers.NAMES, default=brokers.NAMES)
    parser.add_argument("--databases", nargs="+", choices=DATABASES, default=DATABASES)
    parser.add_argument("--jobs", type=int, default=24, help="small jobs (default: 24)")
    parser.add_argument("--kills", type=int, default=21, help="kills at most (default: 21)")
    parser.add_argument("--compressions", type=int, default=1, help="real jobs (default: 1)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, default=RESULTS)
    return parser.parse_args()


@contextmanager
def _database(name: str, folder: Path) -> Iterator[Database]:
    """Yield a migrated, empty database."""
    if name == "sqlite":
        database = Database(f"sqlite:///{folder / 'cstar.db'}")
        upgrade(database)
        yield database
        database.dispose()
        return
    with postgres.server() as server, postgres.scratch_database(server) as url:
        database = Database(url)
        upgrade(database)
        yield database
        database.dispose()


def _server_version(database: Database) -> str:
    with database.engine.connect() as connection:
        names = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
        found = connection.dialect.server_version_info or ()
        return f"{names[connection.dialect.name]} {'.'.join(str(part) for part in found)}"


def _circumstances(seed: int) -> dict[str, Any]:
    return {
        "seed": seed,
        "commit": commit(),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "hardware": hardware(),
        "load_average": load_average(),
    }


def _keep(path: Path, row: dict[str, Any]) -> None:
    """Put a row in the place of the one of the same broker and database, and renew the page."""
    rows = json.loads(path.read_text()) if path.exists() else []
    key = (row["broker"], row["database"])
    others = [other for other in rows if (other["broker"], other["database"]) != key]
    order = [(broker, database) for broker in brokers.NAMES for database in DATABASES]
    rows = sorted([*others, row], key=lambda r: order.index((r["broker"], r["database"])))
    path.write_text(json.dumps(rows, indent=1) + "\n")
    write_page(path.with_suffix(".md"), rows)


def _show(rows: list[dict[str, Any]]) -> None:
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*cells(row))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
