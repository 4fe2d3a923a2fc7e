"""Evaluations: jobs that judge a model as it is.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

KINDS_BEFORE = ("compress", "plan", "validate_model", "validate_dataset")
KINDS = ("compress", "evaluate", "plan", "validate_model", "validate_dataset")
OF_A_JOB = ("artifacts", "checkpoints", "job_attempts", "job_events", "job_metrics", "outbox")


def upgrade() -> None:
    """Let jobs evaluate."""
    _allow(KINDS)


def downgrade() -> None:
    """Delete every evaluation with all it has left."""
    jobs = sa.table("jobs", sa.column("id"), sa.column("kind"))
    evaluations = sa.select(jobs.c.id).where(jobs.c.kind == "evaluate")
    for name in OF_A_JOB:
        rows = sa.table(name, sa.column("job_id"))
        op.execute(rows.delete().where(rows.c.job_id.in_(evaluations)))
    op.execute(jobs.delete().where(jobs.c.kind == "evaluate"))
    _allow(KINDS_BEFORE)


def _allow(kinds: tuple[str, ...]) -> None:
    listed = ", ".join(f"'{kind}'" for kind in kinds)
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_constraint(op.f("ck_jobs_kind"), type_="check")
        batch_op.create_check_constraint(op.f("ck_jobs_kind"), f"kind IN ({listed})")
