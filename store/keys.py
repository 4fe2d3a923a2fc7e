"""API keys: `cst_` and 40 hexadecimal digits, of which only an HMAC-SHA256 is kept.

`python -m store.keys create --tenant NAME` makes the first key of a deployment.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import secrets
import sys
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.database import Database, database_now
from store.identifiers import new_id
from store.settings import settings
from store.tables import ApiKey, Tenant

PREFIX = "cst_"


def create_tenant(session: Session, name: str) -> Tenant:
    """Add a tenant."""
    tenant = Tenant(id=new_id("tnt"), name=name, created_at=database_now(session))
    session.add(tenant)
    session.flush()
    return tenant


def tenant_named(session: Session, name: str) -> Tenant:
    """Return the oldest tenant of that name; it is added when there is none."""
    known = session.scalars(select(Tenant).where(Tenant.name == name).order_by(Tenant.id)).first()
    return known or create_tenant(session, name)


def create_key(session: Session, *, tenant_id: str, name: str, secret_key: str) -> str:
    """Add a key and return it; it cannot be read again afterwards."""
    key = PREFIX + secrets.token_hex(20)
    session.add(
        ApiKey(
            id=new_id("key"),
            tenant_id=tenant_id,
            name=name,
            digest=_digest(key, secret_key),
            created_at=database_now(session),
        )
    )
    session.flush()
    return key


def tenant_of(session: Session, key: str, *, secret_key: str) -> str | None:
    """Return the tenant a presented key belongs to, None when it is unknown or revoked."""
    return session.scalar(
        select(ApiKey.tenant_id).where(
            ApiKey.digest == _digest(key, secret_key), ApiKey.revoked_at.is_(None)
        )
    )


def _digest(key: str, secret_key: str) -> str:
    return hmac.new(secret_key.encode(), key.encode(), hashlib.sha256).hexdigest()


def main(arguments: Sequence[str] | None = None) -> None:
    """Make a key and print it, alone, on standard output."""
    chosen = _parser().parse_args(arguments)
    secret = settings().secret_key
    if secret is None:
        raise SystemExit(
            "CSTAR_SECRET_KEY is not set; give it the value that the API has, "
            "because a key opens nothing under another secret"
        )
    database = Database(settings().resolved_database_url)
    with database.writing() as session:
        tenant = tenant_named(session, chosen.tenant)
        key = create_key(
            session, tenant_id=tenant.id, name=chosen.name, secret_key=secret.get_secret_value()
        )
    database.dispose()
    print(f"key of tenant {tenant.name} ({tenant.id}); it is not shown again", file=sys.stderr)
    print(key)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m store.keys")
    commands = parser.add_subparsers(dest="command", required=True)
    create = commands.add_parser("create", help="make a key in CSTAR_DATABASE_URL and print it")
    create.add_argument("--tenant", required=True, help="name of its owner; added if it is new")
    create.add_argument("--name", default="first key", help="what the key is for")
    return parser


if __name__ == "__main__":
    main()
