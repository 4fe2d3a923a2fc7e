"""The embedded stack's own secret, first tenant and first key, kept in its data folder."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

from sqlalchemy import select

from store.database import Database
from store.keys import create_key, create_tenant, tenant_of
from store.tables import Tenant

STACK_FILE = "stack.json"
SECRET_FILE = "secret.key"  # noqa: S105  (a file's name)


def secret_key(data_dir: Path) -> str:
    """Return this stack's secret, made on first use."""
    path = data_dir / SECRET_FILE
    if not path.exists():
        _write_private(path, secrets.token_hex(32))
    return path.read_text().strip()


def first_key(database: Database, data_dir: Path, secret: str) -> str:
    """Return the key in stack.json if it is still good, else a new one of the first tenant."""
    known = _read(data_dir / STACK_FILE).get("api_key", "")
    with database.writing() as session:
        if known and tenant_of(session, known, secret_key=secret) is not None:
            return str(known)
        tenant = session.scalars(select(Tenant).order_by(Tenant.id)).first()
        tenant = tenant or create_tenant(session, "default")
        return create_key(session, tenant_id=tenant.id, name="first key", secret_key=secret)


def write_stack_file(data_dir: Path, *, url: str, api_key: str) -> Path:
    """Write where the stack is and how to get in, for scripts; readable by its owner only."""
    path = data_dir / STACK_FILE
    _write_private(path, json.dumps({"url": url, "api_key": api_key}) + "\n")
    return path


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
