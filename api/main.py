"""The application. Importing it opens nothing; serving it needs `CSTAR_SECRET_KEY`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp

from api import openapi, problems
from api.architectures.endpoints import router as architectures
from api.artifacts.endpoints import router as artifacts
from api.audit.endpoints import router as audit
from api.cors import NamedOrigins
from api.datasets.endpoints import router as datasets
from api.dependencies import open_services
from api.files.endpoints import router as files
from api.jobs.endpoints import router as jobs
from api.jobs.history_endpoints import router as job_history
from api.keys.endpoints import router as keys
from api.last_used import written_now_and_then
from api.methods import HeadLikeGet
from api.middleware import RequestMiddleware
from api.models.endpoints import router as models
from api.models.lineage_endpoints import router as lineage
from api.pareto.endpoints import router as pareto
from api.plans.endpoints import router as plans
from api.problem_pages.endpoints import router as problem_pages
from api.sweeps.endpoints import router as sweeps
from api.system.endpoints import VERSION
from api.system.endpoints import router as system
from api.uploads.endpoints import router as uploads
from api.usage.endpoints import router as usage
from api.webhooks.delivery_endpoints import router as webhook_deliveries
from api.webhooks.endpoints import router as webhook_endpoints
from api.workers.endpoints import router as workers
from store import tracing
from store.settings import Settings
from store.settings import settings as process_settings

_ROUTERS = (  # the first is found first: polls of jobs come more often than all else
    jobs,
    job_history,
    files,
    uploads,
    models,
    lineage,
    pareto,
    sweeps,
    datasets,
    plans,
    artifacts,
    architectures,
    workers,
    webhook_endpoints,
    webhook_deliveries,
    keys,
    usage,
    audit,
    system,
    problem_pages,
)


class Service(FastAPI):
    """FastAPI with an OpenAPI description that is complete, and what every answer carries."""

    def build_middleware_stack(self) -> ASGIApp:
        """Return all of it within ours, so that the answer to a failure is like the others."""
        return RequestMiddleware(NamedOrigins(super().build_middleware_stack()))

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, made once."""
        if self.openapi_schema is None:
            self.openapi_schema = openapi.completed(super().openapi())
        return self.openapi_schema


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the application; it reads the environment at start-up unless given `settings`."""
    app = Service(
        title="CSTAR",
        version=VERSION,
        summary="Makes a trained CNN small and adversarially robust at once.",
        lifespan=_lifespan(settings),
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    problems.register(app)
    app.add_middleware(HeadLikeGet)
    for router in _ROUTERS:
        app.include_router(router)
    return app


def _lifespan(
    settings: Settings | None,
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def serve(app: FastAPI) -> AsyncIterator[None]:
        services = app.state.services = open_services(settings or process_settings())
        async with written_now_and_then(services.last_used):
            yield
        services.completions.close()
        tracing.flush()
        services.database.dispose()

    return serve


app = create_app()
