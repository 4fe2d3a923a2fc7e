"""Alembic's entry: runs the migrations on the connection that `store.migrate` hands over."""

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Connection

from store.tables import Base, UtcDateTime


def run(connection: Connection) -> None:
    """Run the migrations inside one transaction (batch mode: SQLite cannot alter tables)."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,
        compare_type=True,
        render_item=render,
    )
    with context.begin_transaction():
        context.run_migrations()


def render(kind: str, item: Any, _context: AutogenContext) -> str | Literal[False]:
    """Write column types into a migration without a reference to the code of today."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


run(context.config.attributes["connection"])
