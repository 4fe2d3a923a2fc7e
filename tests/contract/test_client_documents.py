"""What the client reads of a document is what the API promises to send."""

from __future__ import annotations

from typing import Any

import pytest

from api.main import app
from cstar_client import documents

SCHEMAS: dict[str, Any] = app.openapi()["components"]["schemas"]
SENT = {
    documents.Alias: "AliasDocument",
    documents.Amount: "Amount",
    documents.ApiKey: "KeyDocument",
    documents.Architecture: "ArchitectureDocument",
    documents.Artifact: "ArtifactDocument",
    documents.AuditEvent: "AuditEventDocument",
    documents.Dataset: "DatasetDocument",
    documents.Event: "EventDocument",
    documents.Failure: "JobError",
    documents.File: "FileDocument",
    documents.InputSpec: "InputSpec",
    documents.Job: "JobDocument",
    documents.Metric: "MetricDocument",
    documents.Model: "ModelDocument",
    documents.NewApiKey: "NewKeyDocument",
    documents.NewWebhookEndpoint: "WebhookEndpointWithSecret",
    documents.Pareto: "ParetoDocument",
    documents.ParetoPoint: "PointDocument",
    documents.Part: "PartDocument",
    documents.Plan: "PlanDocument",
    documents.PresignedPart: "PresignedPart",
    documents.Sweep: "SweepDocument",
    documents.Upload: "UploadDocument",
    documents.Usage: "UsageDocument",
    documents.WebhookDelivery: "WebhookDeliveryDocument",
    documents.WebhookEndpoint: "WebhookEndpointDocument",
    documents.Worker: "WorkerDocument",
}


@pytest.mark.parametrize("kind", SENT, ids=lambda kind: kind.__name__)
def test_every_field_of_a_document_is_sent(kind: Any) -> None:
    assert set(kind.__annotations__) <= set(SCHEMAS[SENT[kind]]["properties"])


def test_every_field_of_a_job_that_can_be_asked_for_is_taken() -> None:
    assert set(documents.JobFields.__annotations__) <= set(SCHEMAS["JobRequest"]["properties"])
