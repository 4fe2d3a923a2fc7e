"""The stable codes of problem documents with their statuses; docs/errors.md explains each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Kind:
    """What all problems of one code share."""

    status: int
    title: str
    headers: Mapping[str, str] = field(default_factory=dict)


_RETRY = {"Retry-After": "2"}

KINDS: dict[str, Kind] = {
    "bad_request": Kind(400, "The request cannot be read"),
    "invalid_digest": Kind(400, "The Content-Digest header cannot be used"),
    "unauthenticated": Kind(401, "A valid API key is needed"),
    "insufficient_scope": Kind(403, "The API key may not do this"),
    "quota_exceeded": Kind(403, "The tenant may have no more of this"),
    "cross_origin_refused": Kind(403, "A page of this origin may not send this"),
    "not_found": Kind(404, "Not found"),
    "method_not_allowed": Kind(405, "The method is not allowed here"),
    "model_not_ready": Kind(409, "The model is still being validated", _RETRY),
    "dataset_not_ready": Kind(409, "The data set is still being validated", _RETRY),
    "in_use": Kind(409, "Something still uses this"),
    "invalid_transition": Kind(409, "The job's state does not allow this"),
    "idempotency_in_progress": Kind(409, "The same request is still being carried out", _RETRY),
    "upload_not_open": Kind(409, "The upload's status does not allow this"),
    "parts_missing": Kind(409, "Parts of the upload have not arrived"),
    "webhook_endpoint_disabled": Kind(409, "The webhook endpoint is disabled"),
    "rotation_under_way": Kind(409, "The last rotation has not ended"),
    "key_ended": Kind(409, "The API key has ended"),
    "precondition_failed": Kind(412, "It is no longer as If-Match says"),
    "too_large": Kind(413, "The body is too large"),
    "unsupported_media_type": Kind(415, "The body's type or encoding is not supported"),
    "range_not_satisfiable": Kind(416, "The range lies outside the content"),
    "invalid_request": Kind(422, "The request is not valid"),
    "idempotency_key_reused": Kind(422, "The idempotency key came with another request"),
    "empty_file": Kind(422, "The file is empty"),
    "unknown_format": Kind(422, "The file's format is not known"),
    "digest_mismatch": Kind(422, "The bytes are not those announced"),
    "part_out_of_range": Kind(422, "The upload has no such part"),
    "wrong_part_size": Kind(422, "The part has another size"),
    "wrong_purpose": Kind(422, "The file was uploaded for another purpose"),
    "unknown_architecture": Kind(422, "The architecture is not known"),
    "invalid_arguments": Kind(422, "The architecture does not take these arguments"),
    "model_rejected": Kind(422, "The model was rejected"),
    "dataset_rejected": Kind(422, "The data set was rejected"),
    "shape_mismatch": Kind(422, "The images do not fit the model"),
    "labels_outside_classes": Kind(422, "The labels do not fit the model"),
    "not_compressible": Kind(422, "The model cannot be compressed again"),
    "target_infeasible": Kind(422, "The target cannot be met"),
    "too_few_examples": Kind(422, "The data set has too few test examples"),
    "rate_limited": Kind(429, "Too many requests"),
    "invalid_webhook_url": Kind(422, "Webhooks are not sent to such a URL"),
    "internal": Kind(500, "The server failed"),
    "content_lost": Kind(500, "The stored bytes are damaged or gone"),
    "unavailable": Kind(503, "The service cannot answer at the moment", _RETRY),
    "storage_full": Kind(507, "The service has no room left", {"Retry-After": "60"}),
}

CODE_OF_STATUS = {
    400: "bad_request",
    401: "unauthenticated",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
}
