"""Making keys, finding them, replacing and revoking them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta

from sqlalchemy.orm import Session

from api.errors import Fault, InsufficientScope, InvalidRequest, KeyEnded
from api.keys.schemas import KeyRequest
from api.pagination import Cursor, Slice, keyset
from api.principal import Principal
from api.tenancy import find, owned
from store import keys
from store.keys import EVERYTHING, allows
from store.tables import ApiKey


def create(
    session: Session,
    request: KeyRequest,
    *,
    principal: Principal,
    known_scopes: Collection[str],
    secret_key: str,
) -> tuple[ApiKey, str]:
    """Add a key; returns its row and its text. Raises InvalidRequest or InsufficientScope."""
    _check_known(request.scopes, known_scopes)
    _check_held(request.scopes, principal)
    row, key = keys.issue(
        session,
        tenant_id=principal.tenant_id,
        name=request.name,
        secret_key=secret_key,
        scopes=list(dict.fromkeys(request.scopes)),
        lifetime_s=request.expires_in_s,
        created_by=principal.key_id,
    )
    _check_lasts(row, request.expires_in_s)
    return row, key


def rotate(
    session: Session, key_id: str, *, principal: Principal, overlap_s: float, secret_key: str
) -> tuple[ApiKey, str]:
    """Add a key in place of another; raises NotFound, InsufficientScope or KeyEnded."""
    row = get(session, key_id, tenant_id=principal.tenant_id)
    _check_held(row.scopes, principal, in_body=False)
    try:
        return keys.rotate(
            session,
            row,
            secret_key=secret_key,
            overlap_s=overlap_s,
            created_by=principal.key_id,
        )
    except keys.KeyInvalid as error:
        raise KeyEnded("The key was revoked or has expired; make a new one instead.") from error


def revoke(session: Session, key_id: str, *, tenant_id: str) -> ApiKey:
    """End a key; one that has ended stays as it was. Raises NotFound."""
    row = get(session, key_id, tenant_id=tenant_id)
    keys.revoke(session, row)
    return row


def page(session: Session, cursor: Cursor, *, tenant_id: str) -> Slice[ApiKey]:
    """Return a page of the tenant's keys, those that have ended too."""
    return keyset(session, owned(ApiKey, tenant_id), ApiKey.id, cursor)


def get(session: Session, key_id: str, *, tenant_id: str) -> ApiKey:
    """Return a key; raises NotFound."""
    return find(session, ApiKey, key_id, tenant_id=tenant_id)


def _check_known(scopes: Sequence[str], known: Collection[str]) -> None:
    unknown = [scope for scope in scopes if scope != EVERYTHING and scope not in known]
    if unknown:
        detail = f"There is no scope {unknown[0]!r}; there are * and {', '.join(sorted(known))}."
        raise InvalidRequest(detail, faults=_faults(detail, scopes, unknown))


def _check_held(scopes: Sequence[str], principal: Principal, *, in_body: bool = True) -> None:
    """Raise InsufficientScope for what the key that asks may not do itself."""
    missing = [scope for scope in scopes if not allows(principal.scopes, scope)]
    if missing:
        detail = f"A key cannot give what it has not: this one lacks {', '.join(missing)}."
        faults = _faults(detail, scopes, missing) if in_body else []
        raise InsufficientScope(detail, faults=faults)


def _check_lasts(row: ApiKey, expires_in_s: int | None) -> None:
    """Raise InvalidRequest where a new key ends before the time that was asked for."""
    if expires_in_s is None or row.expires_at is None:
        return
    if row.expires_at < row.created_at + timedelta(seconds=expires_in_s):
        detail = (
            "A key cannot outlive the one that makes it, which ends at "
            f"{row.expires_at:%Y-%m-%d %H:%M:%S} UTC: leave expires_in_s out for the same end."
        )
        raise InvalidRequest(detail, faults=[Fault(detail, pointer="/expires_in_s")])


def _faults(detail: str, scopes: Sequence[str], wrong: Collection[str]) -> list[Fault]:
    return [
        Fault(detail, pointer=f"/scopes/{index}")
        for index, scope in enumerate(scopes)
        if scope in wrong
    ]
