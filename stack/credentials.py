"""The embedded stack's own secret, first tenant and first key, kept in its data folder."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
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
    known = stack_file(data_dir).get("api_key", "")
    with database.writing() as session:
        if known and tenant_of(session, known, secret_key=secret) is not None:
            return str(known)
        tenant = session.scalars(select(Tenant).order_by(Tenant.id)).first()
        tenant = tenant or create_tenant(session, "default")
        return create_key(session, tenant_id=tenant.id, name="first key", secret_key=secret)


def write_stack_file(data_dir: Path, *, url: str, api_key: str) -> Path:
    """Write where this stack is and how to get in, for scripts; readable by its owner only."""
    path = data_dir / STACK_FILE
    said = {"url": url, "api_key": api_key, "pid": os.getpid()}
    _write_private(path, json.dumps(said) + "\n")
    return path


def stack_file(data_dir: Path) -> dict[str, Any]:
    """Return what the last stack that was ready wrote; nothing for a file that is broken."""
    try:
        return dict(json.loads((data_dir / STACK_FILE).read_text()))
    except (FileNotFoundError, ValueError):
        return {}


def _write_private(path: Path, text: str) -> None:
    """Write all of a file or nothing, whenever the process dies."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mode 0600
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    Path(name).replace(path)
