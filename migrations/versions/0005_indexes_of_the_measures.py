"""Indexes for what /metrics counts, so that asking is cheap with many jobs behind.

Revision ID: 0005
Revises: 0004
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

INDEXES = {
    "ix_jobs_queue_kind_state": ("jobs", ["queue", "kind", "state"]),
    "ix_jobs_finished_at": ("jobs", ["finished_at"]),
    "ix_job_attempts_outcome": ("job_attempts", ["outcome"]),
}


def upgrade() -> None:
    """Add the indexes."""
    for name, (table, columns) in INDEXES.items():
        op.create_index(op.f(name), table, columns)


def downgrade() -> None:
    """Drop them again."""
    for name, (table, _) in INDEXES.items():
        op.drop_index(op.f(name), table_name=table)
