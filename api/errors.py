"""What can be wrong with a request, said without HTTP; `api.problems` gives each its status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Fault:
    """One thing to mend: a JSON pointer (RFC 6901) into the body, or the name of a parameter."""

    detail: str
    pointer: str | None = None
    parameter: str | None = None


class DomainError(Exception):
    """Base of every refusal; `code` is stable, `detail` says what to do next."""

    code: str = "internal"

    def __init__(
        self,
        detail: str,
        *,
        faults: Sequence[Fault] = (),
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.faults = tuple(faults)
        self.members = dict(members or {})


class InvalidRequest(DomainError):
    """A field or parameter is missing, unknown or out of range."""

    code = "invalid_request"


class NotFound(DomainError):
    """There is no such thing, or it belongs to another tenant."""

    code = "not_found"


class InsufficientScope(DomainError):
    """The key may do less than it asks for."""

    code = "insufficient_scope"


class QuotaExceeded(DomainError):
    """The tenant has as much as it may have."""

    code = "quota_exceeded"


class KeyEnded(DomainError):
    """The API key was revoked or has expired."""

    code = "key_ended"


class EmptyFile(DomainError):
    """An upload without a byte."""

    code = "empty_file"


class UnknownFormat(DomainError):
    """An upload that cannot be what its purpose says."""

    code = "unknown_format"


class FileTooLarge(DomainError):
    """An upload past the limit of this server."""

    code = "too_large"


class StorageFull(DomainError):
    """The service has no room for what is sent."""

    code = "storage_full"


class ContentLost(DomainError):
    """Bytes that the service had are damaged or gone."""

    code = "content_lost"


class DigestMismatch(DomainError):
    """The bytes that arrived are not those that were announced."""

    code = "digest_mismatch"


class PartOutOfRange(DomainError):
    """An upload has no part of that number."""

    code = "part_out_of_range"


class WrongPartSize(DomainError):
    """A part has fewer or more bytes than it must."""

    code = "wrong_part_size"


class PartsMissing(DomainError):
    """An upload cannot be completed yet; `members["missing_parts"]` are to be sent."""

    code = "parts_missing"


class UploadNotOpen(DomainError):
    """The upload takes no parts, or cannot be completed, as it is now."""

    code = "upload_not_open"


class WrongPurpose(DomainError):
    """A file uploaded for one purpose is used for another."""

    code = "wrong_purpose"


class UnknownArchitecture(DomainError):
    """An architecture that this server does not know."""

    code = "unknown_architecture"


class InvalidArguments(DomainError):
    """An argument the architecture does not take, or of another type."""

    code = "invalid_arguments"


class ModelNotReady(DomainError):
    """The model is still being validated."""

    code = "model_not_ready"


class ModelRejected(DomainError):
    """The model was found unusable."""

    code = "model_rejected"


class DatasetNotReady(DomainError):
    """The data set is still being validated."""

    code = "dataset_not_ready"


class DatasetRejected(DomainError):
    """The data set was found unusable."""

    code = "dataset_rejected"


class ShapeMismatch(DomainError):
    """The data set's images, or those of a baseline, are not what the model takes."""

    code = "shape_mismatch"


class LabelsOutsideClasses(DomainError):
    """The data set has more classes than the model."""

    code = "labels_outside_classes"


class TargetInfeasible(DomainError):
    """No choice of ranks meets the target; `members["best"]` is what can be met."""

    code = "target_infeasible"


class TooFewExamples(DomainError):
    """More test examples are asked for than there are."""

    code = "too_few_examples"


class NotCompressible(DomainError):
    """The model is a compressed network, which is judged but not compressed again."""

    code = "not_compressible"


class InUse(DomainError):
    """Something that is to be deleted is needed; `members["used_by"]` says by what."""

    code = "in_use"


class InvalidTransition(DomainError):
    """The job's state does not allow the action."""

    code = "invalid_transition"


class InvalidWebhookUrl(DomainError):
    """A webhook may not be sent to this URL."""

    code = "invalid_webhook_url"


class WebhookEndpointDisabled(DomainError):
    """Nothing is sent to an endpoint that is disabled."""

    code = "webhook_endpoint_disabled"


class RotationUnderWay(DomainError):
    """The secret before still signs; `members["possible_at"]` says until when."""

    code = "rotation_under_way"
