"""Webhook endpoints and deliveries.

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
STRING = sa.String(length=255)


def upgrade() -> None:
    """Add the two tables."""
    _create_endpoints()
    _create_deliveries()


def downgrade() -> None:
    """Take them away, with all that is in them."""
    op.drop_table("webhook_deliveries")
    op.drop_table("webhook_endpoints")


def _create_endpoints() -> None:
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", STRING, nullable=False),
        sa.Column("tenant_id", STRING, nullable=False),
        sa.Column("url", sa.String(length=2048), nullable=False),
        sa.Column("description", STRING, nullable=False),
        sa.Column("events", sa.JSON(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("secret", STRING, nullable=False),
        sa.Column("previous_secret", STRING, nullable=True),
        sa.Column("previous_secret_expires_at", TIME, nullable=True),
        sa.Column("failing_since", TIME, nullable=True),
        sa.Column("disabled_at", TIME, nullable=True),
        sa.Column("disabled_reason", STRING, nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.CheckConstraint(
            "disabled_reason IN ('gone', 'failing')",
            name=op.f("ck_webhook_endpoints_disabled_reason"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_webhook_endpoints_tenant_id_tenants")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_endpoints")),
    )
    op.create_index(
        op.f("ix_webhook_endpoints_tenant_id"), "webhook_endpoints", ["tenant_id"], unique=False
    )


def _create_deliveries() -> None:
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", STRING, nullable=False),
        sa.Column("tenant_id", STRING, nullable=False),
        sa.Column("endpoint_id", STRING, nullable=False),
        sa.Column("message_id", STRING, nullable=False),
        sa.Column("type", STRING, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("status", STRING, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", TIME, nullable=True),
        sa.Column("lease_token", STRING, nullable=True),
        sa.Column("response_status", sa.Integer(), nullable=True),
        sa.Column("error", STRING, nullable=True),
        sa.Column("last_attempt_at", TIME, nullable=True),
        sa.Column("finished_at", TIME, nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.CheckConstraint(
            "status IN ('pending', 'delivered', 'failed')",
            name=op.f("ck_webhook_deliveries_status"),
        ),
        sa.ForeignKeyConstraint(
            ["endpoint_id"],
            ["webhook_endpoints.id"],
            name=op.f("fk_webhook_deliveries_endpoint_id_webhook_endpoints"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_webhook_deliveries_tenant_id_tenants")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
    )
    for name, columns in (
        ("ix_webhook_deliveries_created_at", ["created_at"]),
        ("ix_webhook_deliveries_endpoint_id_id", ["endpoint_id", "id"]),
        (
            "ix_webhook_deliveries_endpoint_id_status_next_attempt_at",
            ["endpoint_id", "status", "next_attempt_at"],
        ),
        ("ix_webhook_deliveries_status_type", ["status", "type"]),
    ):
        op.create_index(name, "webhook_deliveries", columns, unique=False)
