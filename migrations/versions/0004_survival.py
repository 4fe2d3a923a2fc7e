"""Turns of tenants, jobs and calls that wait, blobs that are condemned or were scrubbed.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add what keeps jobs and bytes alive."""
    with op.batch_alter_table("blobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("condemned_at", TIME, nullable=True))
        batch_op.add_column(sa.Column("verified_at", TIME, nullable=True))
        batch_op.add_column(sa.Column("damage", sa.String(length=255), nullable=True))
        batch_op.create_check_constraint(
            op.f("ck_blobs_damage"), "damage IN ('missing', 'damaged')"
        )
        batch_op.create_index(batch_op.f("ix_blobs_condemned_at"), ["condemned_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_blobs_verified_at"), ["verified_at"], unique=False)
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("available_at", TIME, nullable=True))
        batch_op.create_index(
            "ix_jobs_state_queue_finished_at", ["state", "queue", "finished_at"], unique=False
        )
    with op.batch_alter_table("outbox", schema=None) as batch_op:
        batch_op.add_column(sa.Column("due_at", TIME, nullable=True))
    _create_queue_turns()


def downgrade() -> None:
    """Take it away; a condemned blob, which may have lost its bytes, loses its row."""
    op.drop_table("queue_turns")
    with op.batch_alter_table("outbox", schema=None) as batch_op:
        batch_op.drop_column("due_at")
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_index("ix_jobs_state_queue_finished_at")
        batch_op.drop_column("available_at")
    blobs = sa.table("blobs", sa.column("condemned_at"))
    op.execute(blobs.delete().where(blobs.c.condemned_at.is_not(None)))
    with op.batch_alter_table("blobs", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_blobs_condemned_at"))
        batch_op.drop_index(batch_op.f("ix_blobs_verified_at"))
        batch_op.drop_constraint(op.f("ck_blobs_damage"), type_="check")
        for name in ("condemned_at", "verified_at", "damage"):
            batch_op.drop_column(name)


def _create_queue_turns() -> None:
    op.create_table(
        "queue_turns",
        sa.Column("queue", sa.String(length=255), nullable=False),
        sa.Column("tenant_id", sa.String(length=255), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_queue_turns_tenant_id_tenants")
        ),
        sa.PrimaryKeyConstraint("queue", "tenant_id", name=op.f("pk_queue_turns")),
    )
