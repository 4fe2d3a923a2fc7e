"""Scopes, expiry and rotation of keys, quotas, audit.

Keys that were there may do everything, as before; their prefix is not known.

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TEXT = sa.String(length=255)
TIME = sa.DateTime(timezone=True)
OF_A_KEY = {
    "prefix": TEXT,
    "lifetime_s": sa.Double(),
    "created_by": TEXT,
    "rotated_from": TEXT,
    "expires_at": TIME,
    "last_used_at": TIME,
}
AUDITED = (["tenant_id", "id"], ["tenant_id", "action", "id"])


def upgrade() -> None:
    """Add what keys, quotas and the audit need."""
    _add_filled("tenants", "quotas", "{}")
    _add_filled("api_keys", "scopes", '["*"]')
    with op.batch_alter_table("api_keys", schema=None) as batch_op:
        for name, kind in OF_A_KEY.items():
            batch_op.add_column(sa.Column(name, kind, nullable=True))
        for name in ("created_by", "rotated_from"):
            reference = op.f(f"fk_api_keys_{name}_api_keys")
            batch_op.create_foreign_key(reference, "api_keys", [name], ["id"])
        batch_op.create_index(batch_op.f("ix_api_keys_tenant_id"), ["tenant_id"], unique=False)
    op.create_index("ix_jobs_tenant_id_state", "jobs", ["tenant_id", "state"])
    _create_audit_events()


def downgrade() -> None:
    """Take it away; a key that had limits is revoked, because it would lose them."""
    _revoke_limited()
    op.drop_table("audit_events")
    op.drop_index("ix_jobs_tenant_id_state", table_name="jobs")
    with op.batch_alter_table("api_keys", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_api_keys_tenant_id"))
        for name in ("created_by", "rotated_from"):
            batch_op.drop_constraint(op.f(f"fk_api_keys_{name}_api_keys"), type_="foreignkey")
        for name in ("scopes", *OF_A_KEY):
            batch_op.drop_column(name)
    with op.batch_alter_table("tenants", schema=None) as batch_op:
        batch_op.drop_column("quotas")


def _add_filled(table: str, name: str, value: str) -> None:
    """Add a JSON column that may not be null, with a value for the rows that are there."""
    with op.batch_alter_table(table, schema=None) as batch_op:
        batch_op.add_column(sa.Column(name, sa.JSON(), nullable=False, server_default=value))
    with op.batch_alter_table(table, schema=None) as batch_op:
        batch_op.alter_column(name, server_default=None)


def _revoke_limited() -> None:
    keys = sa.table("api_keys", *map(sa.column, ("scopes", "expires_at", "revoked_at")))
    limited = sa.or_(keys.c.expires_at.is_not(None), sa.cast(keys.c.scopes, sa.Text) != '["*"]')
    revoked = keys.update().where(keys.c.revoked_at.is_(None), limited)
    op.execute(revoked.values(revoked_at=sa.func.current_timestamp()))


def _create_audit_events() -> None:
    op.create_table(
        "audit_events",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("tenant_id", TEXT, nullable=False),
        sa.Column("key_id", TEXT, nullable=True),
        sa.Column("action", TEXT, nullable=False),
        sa.Column("object_id", TEXT, nullable=True),
        sa.Column("created", sa.JSON(), nullable=False),
        sa.Column("request_id", TEXT, nullable=True),
        sa.Column("client_address", TEXT, nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_audit_events_tenant_id_tenants")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_events")),
    )
    op.create_index(op.f("ix_audit_events_created_at"), "audit_events", ["created_at"])
    for columns in AUDITED:
        op.create_index(f"ix_audit_events_{'_'.join(columns)}", "audit_events", columns)
