"""What endpoints are given: the services of this process, opened once at start-up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from api.known_keys import KnownKeys
from api.system.metrics import Scrape
from store.blobs import BlobStore
from store.database import Database
from store.settings import Settings


class MissingSecretKey(RuntimeError):
    """The API cannot check keys without the secret they are hashed with."""

    def __init__(self) -> None:
        super().__init__(
            "CSTAR_SECRET_KEY is not set. Give every process of the service the same long random "
            "value, for example of: python -c 'import secrets; print(secrets.token_hex(32))'"
        )


@dataclass(frozen=True)
class Services:
    """The settings, database and blob store of this process, and the secret of the API keys."""

    settings: Settings
    database: Database
    blobs: BlobStore
    secret_key: str
    scrape: Scrape
    known_keys: KnownKeys


def require_secret_key(settings: Settings) -> str:
    """Return the secret of the API keys; raises MissingSecretKey."""
    if settings.secret_key is None or not settings.secret_key.get_secret_value():
        raise MissingSecretKey
    return settings.secret_key.get_secret_value()


def open_services(settings: Settings) -> Services:
    """Open what the endpoints work with; raises MissingSecretKey."""
    secret_key = require_secret_key(settings)
    database = Database(settings.resolved_database_url)
    return Services(
        settings=settings,
        secret_key=secret_key,
        database=database,
        blobs=BlobStore(settings.resolved_blob_url),
        scrape=Scrape(database),
        known_keys=KnownKeys(),
    )


async def services_of(request: Request) -> Services:
    """Return the services of the application that serves the request.

    A coroutine, because FastAPI sends every other kind of dependency through a thread.
    """
    return cast(Services, request.app.state.services)


ServicesDep = Annotated[Services, Depends(services_of)]
