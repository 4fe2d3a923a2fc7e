"""Alembic's tree: one for SQLite and PostgreSQL. `python -m store.migrate upgrade` runs it."""
