"""Versions, lineage and aliases of models, sweeps, and what deletions leave.

Revision ID: 0010
Revises: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
OF_A_JOB = ("artifacts", "checkpoints", "job_attempts", "job_events", "job_metrics", "outbox")


def upgrade() -> None:
    """Number the models there are, in the order in which they were made."""
    _create_model_names()
    _extend_models()
    with op.batch_alter_table("datasets", schema=None) as batch_op:
        batch_op.alter_column("file_id", existing_type=sa.String(length=255), nullable=True)
        batch_op.add_column(sa.Column("deleted_at", TIME, nullable=True))
        batch_op.create_index(batch_op.f("ix_datasets_file_id"), ["file_id"], unique=False)
    _create_sweeps()
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("sweep_id", sa.String(length=255), nullable=True))
        batch_op.create_foreign_key(op.f("fk_jobs_sweep_id_sweeps"), "sweeps", ["sweep_id"], ["id"])
        batch_op.create_index(batch_op.f("ix_jobs_sweep_id"), ["sweep_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_jobs_retried_from"), ["retried_from"], unique=False)
    _create_model_lineage()
    _create_model_aliases()


def downgrade() -> None:
    """Take it away, and with it models and data sets without a file, and the jobs on them."""
    op.drop_table("model_aliases")
    op.drop_table("model_lineage")
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_jobs_retried_from"))
        batch_op.drop_index(batch_op.f("ix_jobs_sweep_id"))
        batch_op.drop_constraint(op.f("fk_jobs_sweep_id_sweeps"), type_="foreignkey")
        batch_op.drop_column("sweep_id")
    op.drop_table("sweeps")
    _delete_those_without_a_file()
    with op.batch_alter_table("datasets", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_datasets_file_id"))
        batch_op.drop_column("deleted_at")
        batch_op.alter_column("file_id", existing_type=sa.String(length=255), nullable=False)
    with op.batch_alter_table("models", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_models_file_id"))
        batch_op.drop_constraint(op.f("uq_models_tenant_id_name_version"), type_="unique")
        batch_op.drop_constraint(op.f("fk_models_network_sha256_blobs"), type_="foreignkey")
        for name in ("network_sha256", "deleted_at", "version"):
            batch_op.drop_column(name)
        batch_op.alter_column("file_id", existing_type=sa.String(length=255), nullable=False)
    op.drop_table("model_names")


def _extend_models() -> None:
    with op.batch_alter_table("models", schema=None) as batch_op:
        batch_op.add_column(sa.Column("version", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("deleted_at", TIME, nullable=True))
        batch_op.add_column(sa.Column("network_sha256", sa.String(length=64), nullable=True))
        batch_op.create_foreign_key(
            op.f("fk_models_network_sha256_blobs"), "blobs", ["network_sha256"], ["sha256"]
        )
        batch_op.alter_column("file_id", existing_type=sa.String(length=255), nullable=True)
        batch_op.create_index(batch_op.f("ix_models_file_id"), ["file_id"], unique=False)
    op.execute(
        "UPDATE models SET version = (SELECT count(*) FROM models AS earlier WHERE"
        " earlier.tenant_id = models.tenant_id AND earlier.name = models.name"
        " AND earlier.id <= models.id)"
    )
    op.execute(
        "INSERT INTO model_names (tenant_id, name, last_version)"
        " SELECT tenant_id, name, max(version) FROM models GROUP BY tenant_id, name"
    )
    with op.batch_alter_table("models", schema=None) as batch_op:
        batch_op.alter_column("version", existing_type=sa.Integer(), nullable=False)
        batch_op.create_unique_constraint(
            op.f("uq_models_tenant_id_name_version"), ["tenant_id", "name", "version"]
        )


def _delete_those_without_a_file() -> None:
    for table, column in (("models", "model_id"), ("datasets", "dataset_id")):
        subjects = sa.table(table, sa.column("id"), sa.column("file_id"))
        fileless = sa.select(subjects.c.id).where(subjects.c.file_id.is_(None))
        jobs = sa.table("jobs", sa.column("id"), sa.column(column), sa.column("retried_from"))
        gone = sa.select(jobs.c.id).where(jobs.c[column].in_(fileless))
        for name in OF_A_JOB:
            rows = sa.table(name, sa.column("job_id"))
            op.execute(rows.delete().where(rows.c.job_id.in_(gone)))
        plans = sa.table("plans", sa.column("job_id"), sa.column("model_id"))
        op.execute(plans.delete().where(plans.c.job_id.in_(gone)))
        if table == "models":
            op.execute(plans.delete().where(plans.c.model_id.in_(fileless)))
        op.execute(jobs.update().where(jobs.c.retried_from.in_(gone)).values(retried_from=None))
        op.execute(jobs.delete().where(jobs.c[column].in_(fileless)))
        op.execute(subjects.delete().where(subjects.c.file_id.is_(None)))


def _create_model_names() -> None:
    op.create_table(
        "model_names",
        sa.Column("tenant_id", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("last_version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_model_names_tenant_id_tenants")
        ),
        sa.PrimaryKeyConstraint("tenant_id", "name", name=op.f("pk_model_names")),
    )


def _create_sweeps() -> None:
    op.create_table(
        "sweeps",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("tenant_id", sa.String(length=255), nullable=False),
        sa.Column("model_id", sa.String(length=255), nullable=False),
        sa.Column("dataset_id", sa.String(length=255), nullable=False),
        sa.Column("request", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_sweeps_tenant_id_tenants")
        ),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_sweeps_model_id_models")
        ),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name=op.f("fk_sweeps_dataset_id_datasets")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sweeps")),
    )
    with op.batch_alter_table("sweeps", schema=None) as batch_op:
        for column in ("tenant_id", "model_id", "dataset_id"):
            batch_op.create_index(batch_op.f(f"ix_sweeps_{column}"), [column], unique=False)


def _create_model_lineage() -> None:
    op.create_table(
        "model_lineage",
        sa.Column("model_id", sa.String(length=255), nullable=False),
        sa.Column("parent_model_id", sa.String(length=255), nullable=False),
        sa.Column("job_id", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_model_lineage_model_id_models")
        ),
        sa.ForeignKeyConstraint(
            ["parent_model_id"], ["models.id"], name=op.f("fk_model_lineage_parent_model_id_models")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_model_lineage_job_id_jobs")),
        sa.PrimaryKeyConstraint("model_id", name=op.f("pk_model_lineage")),
    )
    with op.batch_alter_table("model_lineage", schema=None) as batch_op:
        for column in ("parent_model_id", "job_id"):
            batch_op.create_index(batch_op.f(f"ix_model_lineage_{column}"), [column], unique=False)


def _create_model_aliases() -> None:
    op.create_table(
        "model_aliases",
        sa.Column("tenant_id", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("alias", sa.String(length=255), nullable=False),
        sa.Column("model_id", sa.String(length=255), nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_model_aliases_tenant_id_tenants")
        ),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_model_aliases_model_id_models")
        ),
        sa.PrimaryKeyConstraint("tenant_id", "name", "alias", name=op.f("pk_model_aliases")),
    )
    with op.batch_alter_table("model_aliases", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_model_aliases_model_id"), ["model_id"], unique=False)
