"""The tables, one class each. Portable between SQLite and PostgreSQL; migrations/ builds them."""

from store.tables.base import Base, UtcDateTime
from store.tables.content import Blob, File
from store.tables.idempotency import IdempotencyKey
from store.tables.jobs import (
    Artifact,
    Checkpoint,
    Job,
    JobAttempt,
    JobEvent,
    JobMetric,
    Plan,
    Sweep,
)
from store.tables.lineage import ModelAlias, ModelLineage, ModelName
from store.tables.subjects import Dataset, Model
from store.tables.tenants import ApiKey, AuditEvent, Tenant
from store.tables.uploads import Upload, UploadPart
from store.tables.webhooks import WebhookDelivery, WebhookEndpoint
from store.tables.work import OutboxMessage, QueueTurn, Worker

__all__ = [
    "ApiKey",
    "Artifact",
    "AuditEvent",
    "Base",
    "Blob",
    "Checkpoint",
    "Dataset",
    "File",
    "IdempotencyKey",
    "Job",
    "JobAttempt",
    "JobEvent",
    "JobMetric",
    "Model",
    "ModelAlias",
    "ModelLineage",
    "ModelName",
    "OutboxMessage",
    "Plan",
    "QueueTurn",
    "Sweep",
    "Tenant",
    "Upload",
    "UploadPart",
    "UtcDateTime",
    "WebhookDelivery",
    "WebhookEndpoint",
    "Worker",
]
