"""Plans: dry runs, and the jobs that make them.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

KINDS_BEFORE = ("compress", "validate_model", "validate_dataset")
KINDS = ("compress", "plan", "validate_model", "validate_dataset")
OF_A_JOB = ("artifacts", "checkpoints", "job_attempts", "job_events", "job_metrics", "outbox")


def upgrade() -> None:
    """Let jobs make plans, and add the table of those who asked for one."""
    _allow(KINDS)
    _create_plans()


def downgrade() -> None:
    """Drop the table, and with it every job that makes a plan."""
    op.drop_table("plans")
    jobs = sa.table("jobs", sa.column("id"), sa.column("kind"))
    plans = sa.select(jobs.c.id).where(jobs.c.kind == "plan")
    for name in OF_A_JOB:
        rows = sa.table(name, sa.column("job_id"))
        op.execute(rows.delete().where(rows.c.job_id.in_(plans)))
    op.execute(jobs.delete().where(jobs.c.kind == "plan"))
    _allow(KINDS_BEFORE)


def _allow(kinds: tuple[str, ...]) -> None:
    listed = ", ".join(f"'{kind}'" for kind in kinds)
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_constraint(op.f("ck_jobs_kind"), type_="check")
        batch_op.create_check_constraint(op.f("ck_jobs_kind"), f"kind IN ({listed})")


def _create_plans() -> None:
    op.create_table(
        "plans",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("tenant_id", sa.String(length=255), nullable=False),
        sa.Column("model_id", sa.String(length=255), nullable=False),
        sa.Column("job_id", sa.String(length=255), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("fk_plans_job_id_jobs"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_plans_model_id_models"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_plans_tenant_id_tenants")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plans")),
    )
    with op.batch_alter_table("plans", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_plans_job_id"), ["job_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_plans_model_id"), ["model_id"], unique=False)
        batch_op.create_index("ix_plans_tenant_id_key", ["tenant_id", "key"], unique=False)
