"""`python -m store.keys`: keys of the database in CSTAR_DATABASE_URL, for its operator."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from store import audit, quotas
from store.database import Database
from store.keys.records import issue, revoke, tenant_named
from store.keys.scopes import EVERYTHING, is_scope
from store.logs import visible
from store.settings import settings
from store.tables import ApiKey, Tenant

LONGEST_S = 100 * 365.25 * 86_400
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def create(session: Session, chosen: argparse.Namespace) -> None:
    """Make a key and print it, alone, on standard output."""
    tenant = tenant_named(session, chosen.tenant)
    row, key = issue(
        session,
        tenant_id=tenant.id,
        name=chosen.name,
        secret_key=_secret(),
        scopes=chosen.scope or [EVERYTHING],
        lifetime_s=chosen.expires_in,
    )
    _record(session, "create_api_key", row)
    told = f"{row.id} of tenant {tenant.name} ({tenant.id}); the key is not shown again"
    print(told, file=sys.stderr)
    print(key)


def list_keys(session: Session, chosen: argparse.Namespace) -> None:
    """Print a line a key, the oldest first."""
    statement = select(ApiKey, Tenant.name).join(Tenant, Tenant.id == ApiKey.tenant_id)
    if chosen.tenant is not None:
        statement = statement.where(Tenant.name == chosen.tenant)
    for key, tenant in session.execute(statement.order_by(ApiKey.id)):
        columns = (key.id, key.prefix or "?", tenant, key.name, ",".join(key.scopes), _end(key))
        print(*map(visible, columns), sep="\t")  # tenants choose the names


def revoke_key(session: Session, chosen: argparse.Namespace) -> None:
    """End a key; the API's processes go on to take it for 5 s at most."""
    row = session.get(ApiKey, chosen.id)
    if row is None:
        raise SystemExit(f"there is no key {chosen.id}; `python -m store.keys list` has their ids")
    revoke(session, row)
    _record(session, "revoke_api_key", row)
    print(f"{row.id} is revoked", file=sys.stderr)


def quota(session: Session, chosen: argparse.Namespace) -> None:
    """Set limits of a tenant's own, and print those it has then."""
    tenant = session.scalars(select(Tenant).where(Tenant.name == chosen.tenant)).first()
    if tenant is None:
        raise SystemExit(f"there is no tenant {chosen.tenant}")
    quotas.set_limits(tenant, dict(chosen.limits))
    if chosen.limits:
        audit.record(session, tenant_id=tenant.id, action="set_quota", object_id=tenant.id)
    for name, default in quotas.defaults(settings()).items():
        print(name, quotas.limit_of(tenant, name, default) or "no limit", sep="\t")


def _record(session: Session, action: str, row: ApiKey) -> None:
    made = [row.id] if action.startswith("create") else []
    audit.record(session, tenant_id=row.tenant_id, action=action, object_id=row.id, created=made)


def _end(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return f"revoked {key.revoked_at:%Y-%m-%dT%H:%M:%SZ}"
    return f"until {key.expires_at:%Y-%m-%dT%H:%M:%SZ}" if key.expires_at else "no end"


def _secret() -> str:
    secret = settings().secret_key
    if secret is None:
        raise SystemExit(
            "CSTAR_SECRET_KEY is not set; give it the value that the API has, "
            "because a key opens nothing under another secret"
        )
    return secret.get_secret_value()


def scope(text: str) -> str:
    """Return the scope that an argument names."""
    if not is_scope(text):
        raise argparse.ArgumentTypeError(f"{text!r} is none: jobs:read, jobs:write, ..., or *")
    return text


def limit(text: str) -> tuple[str, int | None]:
    """Return the name and value of an argument like jobs=10, or jobs=default."""
    name, _, value = text.partition("=")
    if name not in quotas.COUNTED or not (value.isdecimal() or value == "default"):
        names = ", ".join(quotas.COUNTED)
        known = f"write NAME=NUMBER, 0 for no limit, or NAME=default; the names: {names}"
        raise argparse.ArgumentTypeError(f"{text!r} is no limit: {known}")
    return name, None if value == "default" else int(value)


def seconds(text: str) -> float:
    """Return how long an argument like 30d, 12h, 90m or 45s means."""
    found = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration: write 90d, 12h, 30m or 45s")
    duration = float(int(found[1]) * _UNITS[found[2]])
    if duration > LONGEST_S:
        raise argparse.ArgumentTypeError(f"{text!r} is more than a century; leave it out for ever")
    return duration


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m store.keys", description=__doc__)
    commands = parser.add_subparsers(required=True)

    def command(name: str, run: Callable[..., None], help_text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help_text, description=help_text)
        added.set_defaults(run=run)
        return added

    making = command("create", create, "make a key and print it")
    making.add_argument("--tenant", required=True, help="name of its owner; added if it is new")
    making.add_argument("--name", default="first key", help="what the key is for")
    making.add_argument("--scope", action="append", type=scope, help="may be repeated; default: *")
    making.add_argument("--expires-in", type=seconds, help="e.g. 90d, 12h; default: never")
    listing = command("list", list_keys, "list keys: id, prefix, tenant, name, scopes, end")
    listing.add_argument("--tenant", help="only those of this tenant")
    limiting = command("quota", quota, "set and show the limits of a tenant")
    limiting.add_argument("--tenant", required=True)
    limiting.add_argument("limits", nargs="*", type=limit, help="e.g. jobs=10; 0: no limit")
    revoking = command("revoke", revoke_key, "end a key")
    revoking.add_argument("id", help="key_..., as `list` shows it")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the commands in one transaction."""
    chosen = _parser().parse_args(arguments)
    database = Database(settings().resolved_database_url)
    try:
        with database.writing() as session:
            chosen.run(session, chosen)
    finally:
        database.dispose()


if __name__ == "__main__":
    main()
