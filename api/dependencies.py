"""What endpoints are given: the services of this process, opened once at start-up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from api.audit.trail import AuditedDatabase
from api.jobs.feeds import Feeds
from api.known_keys import KnownKeys
from api.last_used import LastUsed
from api.quotas import Quotas
from api.rate_limits import RateLimits
from api.system.metrics import AuthFailures, Scrape
from api.uploads.background import Completions
from store.blobs import BlobStore
from store.database import Database
from store.parts import PartStore, open_parts
from store.secret_key import ADVICE, weakness
from store.settings import Settings


class UnfitSecretKey(RuntimeError):
    """The API cannot check keys without the secret they are hashed with, and not guess it."""


@dataclass(frozen=True)
class Services:
    """The settings, database and blob store of this process, and the secret of the API keys."""

    settings: Settings
    database: Database
    blobs: BlobStore
    parts: PartStore
    secret_key: str
    scrape: Scrape
    known_keys: KnownKeys
    last_used: LastUsed
    auth_failures: AuthFailures
    feeds: Feeds
    completions: Completions
    rate_limits: RateLimits
    quotas: Quotas


def require_secret_key(settings: Settings) -> str:
    """Return the secret of the API keys; raises UnfitSecretKey."""
    secret = settings.secret_key.get_secret_value() if settings.secret_key else ""
    if not secret:
        raise UnfitSecretKey(
            f"CSTAR_SECRET_KEY is not set: {ADVICE}, the same for every process of the API and for "
            "`python -m store.keys`"
        )
    found = weakness(secret)
    if found is not None:
        advice = f"{ADVICE}, and make the API keys anew"
        raise UnfitSecretKey(f"CSTAR_SECRET_KEY can be guessed ({found}): {advice}")
    return secret


def open_services(settings: Settings) -> Services:
    """Open what the endpoints work with; raises UnfitSecretKey."""
    secret_key = require_secret_key(settings)
    database = AuditedDatabase(settings.resolved_database_url)
    failures = AuthFailures()
    blobs = BlobStore(settings.resolved_blob_url)
    return Services(
        settings=settings,
        secret_key=secret_key,
        database=database,
        scrape=Scrape(database, failures),
        known_keys=KnownKeys(),
        last_used=LastUsed(database),
        auth_failures=failures,
        feeds=Feeds(database),
        blobs=blobs,
        parts=open_parts(blobs),
        completions=Completions(),
        rate_limits=RateLimits(settings),
        quotas=Quotas(settings),
    )


async def services_of(request: Request) -> Services:
    """Return the services of the application that serves the request.

    A coroutine, because FastAPI sends every other kind of dependency through a thread.
    """
    return cast(Services, request.app.state.services)


ServicesDep = Annotated[Services, Depends(services_of)]
