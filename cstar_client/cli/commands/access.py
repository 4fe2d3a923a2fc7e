"""`cstar keys`, `webhooks`, `usage` and `audit`: who may do what, is told what, and did what."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer
from rich.console import Console

from cstar_client.cli.commands import arguments
from cstar_client.cli.session import Session, command
from cstar_client.cli.tables import DEFAULT_ROWS, field, listing
from cstar_client.resources.webhooks import EVERY_EVENT

DAY_S = 86_400
Endpoint = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Its id, whe_...")]
KeyId = Annotated[str, typer.Argument(metavar="KEY", help="Its id, key_...")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    keys = typer.Typer(help="API keys: the text of one is shown once, when it is made.")
    app.add_typer(keys, name="keys", no_args_is_help=True)
    command(keys, "ls")(list_keys)
    scopes = "--scope jobs:write --scope jobs:read"
    command(keys, "create", examples=[f"cstar keys create ci {scopes} --days 90"])(create_key)
    command(keys, "rotate", examples=["cstar keys rotate key_... --overlap 3600"])(rotate_key)
    command(keys, "revoke")(revoke_key)
    webhooks = typer.Typer(help="Addresses that are told what happens (docs/webhooks.md).")
    app.add_typer(webhooks, name="webhooks", no_args_is_help=True)
    command(webhooks, "ls")(list_webhooks)
    url = "https://ci.example.com/hooks/cstar"
    command(webhooks, "create", examples=[f"cstar webhooks create {url} --event job.succeeded"])(
        create_webhook
    )
    command(webhooks, "rm")(remove_webhook)
    command(webhooks, "test")(test_webhook)
    command(webhooks, "deliveries")(list_deliveries)
    command(app, "usage")(show_usage)
    command(
        app, "audit", examples=["cstar audit --action delete_model", "cstar audit --of job_..."]
    )(list_changes)


def list_keys(session: Session, limit: arguments.Limit = DEFAULT_ROWS) -> None:
    """List the keys, newest first."""
    names = ("id", "name", "prefix", "scopes", "expires_at", "last_used_at", "revoked_at")
    rows = islice(session.client.keys.list(), limit)
    listing(session, rows, [(name, field(name)) for name in names])


def create_key(
    session: Session,
    name: str,
    scope: Annotated[list[str], typer.Option(help="<resource>:read or :write; may be repeated")],
    days: Annotated[int | None, typer.Option(min=1, help="How long it is good")] = None,
    idempotency_key: arguments.Key = None,
) -> None:
    """Make a key and print its text, which cannot be seen again."""
    lifetime_s = None if days is None else days * DAY_S
    made = session.client.keys.create(
        name, scopes=scope, expires_in_s=lifetime_s, idempotency_key=idempotency_key
    )
    session.write(made, made["key"] or f"{made['id']} was made before; its text was shown then")


def rotate_key(
    session: Session,
    key: KeyId,
    overlap: Annotated[
        int | None, typer.Option(metavar="SECONDS", help="How long the old one stays good")
    ] = None,
) -> None:
    """Make a key in place of another, and print its text."""
    made = session.client.keys.rotate(key, overlap_s=overlap)
    session.write(made, made["key"] or made["id"])


def revoke_key(session: Session, key: KeyId) -> None:
    """End a key at once."""
    ended = session.client.keys.revoke(key)
    session.write(ended, f"{ended['id']} revoked")


def list_webhooks(session: Session, limit: arguments.Limit = DEFAULT_ROWS) -> None:
    """List the endpoints, newest first."""
    names = ("id", "url", "events", "enabled", "failing_since")
    rows = islice(session.client.webhooks.list(), limit)
    listing(session, rows, [(name, field(name)) for name in names])


def create_webhook(
    session: Session,
    address: Annotated[str, typer.Argument(metavar="URL", help="Where it is told, https://...")],
    event: Annotated[list[str] | None, typer.Option(help="Else all; may be repeated")] = None,
    description: str = "",
) -> None:
    """Add an endpoint and print its secret, which cannot be seen again."""
    made = session.client.webhooks.create(
        address, events=event or EVERY_EVENT, description=description
    )
    session.say(f"{made['id']} gets {', '.join(made['events'])}")
    session.write(made, made["secret"] or made["id"])


def remove_webhook(session: Session, endpoint: Endpoint) -> None:
    """Remove an endpoint."""
    session.client.webhooks.delete(endpoint)
    session.write({"id": endpoint, "deleted": True}, f"{endpoint} removed")


def test_webhook(session: Session, endpoint: Endpoint) -> None:
    """Send `webhook.test` and show how it went."""
    sent = session.client.webhooks.test(endpoint)
    went = session.client.transport.get(f"/v1/webhook-deliveries/{sent['id']}", wait_s=20)
    how = went["response_status"] or went["error"] or ""
    session.write(went, f"{went['id']} {went['status']} {how}".rstrip())


def list_deliveries(
    session: Session,
    endpoint: Endpoint,
    status: Annotated[str | None, typer.Option(help="Only those in this status")] = None,
    limit: arguments.Limit = DEFAULT_ROWS,
) -> None:
    """List what was sent to an endpoint, newest first."""
    names = ("id", "type", "status", "attempts", "response_status", "error", "next_attempt_at")
    rows = islice(session.client.webhooks.deliveries(endpoint, status=status), limit)
    listing(session, rows, [(name, field(name)) for name in names])


def show_usage(session: Session) -> None:
    """Show how much there is of what is limited, and the limits."""
    usage = session.client.usage.get()

    def show(console: Console) -> None:
        for name, amount in usage.items():
            if isinstance(amount, dict):
                limit = "" if amount["limit"] is None else f" of {amount['limit']:,}"
                console.print(f"{name}: {amount['used']:,}{limit}")

    session.write(usage, show)


def list_changes(
    session: Session,
    action: Annotated[str | None, typer.Option(help="Only this, e.g. create_job")] = None,
    of: Annotated[str | None, typer.Option(metavar="ID", help="Only what changed this")] = None,
    key: Annotated[str | None, typer.Option(metavar="KEY", help="Only what it did")] = None,
    limit: arguments.Limit = DEFAULT_ROWS,
) -> None:
    """List who changed what, newest first."""
    names = ("id", "created_at", "action", "object_id", "key_id", "client_address")
    rows = islice(session.client.audit.list(action=action, changed=of, key=key), limit)
    listing(session, rows, [(name, field(name)) for name in names])
