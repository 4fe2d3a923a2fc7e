"""Settings of every process of the service, from the environment (`CSTAR_*`)."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

_CENTURY_DAYS = 36_500.0  # longer is no date any more
_CENTURY_S = _CENTURY_DAYS * 86400.0
_ORIGIN = r"https?://[A-Za-z0-9.:\[\]-]+"
_ORIGINS = rf"^{_ORIGIN}(\s*,\s*{_ORIGIN})*$"


class Settings(BaseSettings):
    """One value a `CSTAR_...` variable; times are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix="CSTAR_", env_ignore_empty=True)

    data_dir: Path = Path(".cstar")
    database_url: str | None = None
    broker_url: str | None = None
    blob_url: str | None = None
    secret_key: SecretStr | None = None

    lease_s: float = Field(60.0, gt=0)
    heartbeat_s: float = Field(10.0, gt=0)
    redispatch_s: float = Field(60.0, gt=0)
    scheduler_interval_s: float = Field(0.25, gt=0)
    stall_timeout_s: float = Field(1800.0, gt=0)
    cancel_grace_s: float = Field(30.0, gt=0)
    checkpoint_interval_s: float = Field(120.0, ge=0)
    max_attempts: int = Field(3, ge=1)

    scrub_interval_s: float = Field(7 * 86400.0, gt=0, le=_CENTURY_S)
    scrub_bytes_per_s: int = Field(20 << 20, gt=0)

    retention_jobs_days: float | None = Field(None, gt=0, le=_CENTURY_DAYS)
    retention_plans_days: float | None = Field(None, gt=0, le=_CENTURY_DAYS)
    retention_files_days: float | None = Field(None, gt=0, le=_CENTURY_DAYS)
    audit_retention_s: float = Field(365 * 86400.0, ge=0, le=_CENTURY_S)  # 0: for ever

    # Of each tenant that has no limit of its own; 0: no limit.
    quota_jobs: int = Field(10_000, ge=0)
    quota_bytes: int = Field(1 << 40, ge=0)
    quota_models: int = Field(10_000, ge=0)
    quota_datasets: int = Field(10_000, ge=0)
    quota_uploads: int = Field(1_000, ge=0)
    # each transition of a job writes a row for each of them
    quota_webhook_endpoints: int = Field(20, ge=0)
    quota_keys: int = Field(100, ge=0)

    job_queue: str = "cpu.default"

    max_upload_bytes: int = Field(8 << 30, gt=0)
    max_single_upload_bytes: int = Field(1 << 30, gt=0)
    upload_expiry_s: float = Field(86400.0, gt=0, le=7 * 86400.0)
    presign_parts: bool = True
    cors_origins: str | None = Field(
        None, pattern=_ORIGINS
    )  # "https://a.example, https://b.example"
    rate_limit_per_minute: int = Field(12_000, ge=0)  # requests of a key; 0 for no limit
    failures_per_minute: int = Field(60, ge=0)  # requests of an address without a valid key
    rate_limit_url: str | None = None  # Redis, where all API processes count together

    runner_memory_bytes: int = Field(16 << 30, gt=0)
    runner_disk_bytes: int = Field(32 << 30, gt=0)
    runner_tasks: int = Field(4096, gt=0)
    runner_threads: int = Field(0, ge=0)
    sandbox: Literal["auto", "required", "off"] = "auto"

    webhook_allow_private: bool = False  # and http://; for tests and closed networks

    log_format: Literal["text", "json"] = "text"
    traces: str | None = Field(None, pattern=r"^(otlp|file:///.+)$")
    metrics_token: SecretStr | None = None

    @property
    def resolved_database_url(self) -> str:
        """SQLAlchemy URL; SQLite in the data folder unless `CSTAR_DATABASE_URL` is set."""
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'cstar.db'}"

    @property
    def resolved_blob_url(self) -> str:
        """Object-store URL; a folder beside the database unless `CSTAR_BLOB_URL` is set."""
        return self.blob_url or (self.data_dir.resolve() / "blobs").as_uri()


@lru_cache
def settings() -> Settings:
    """Return the settings of this process, read once."""
    return Settings()
