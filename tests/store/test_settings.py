"""Settings from the environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlalchemy import make_url, text

from store.blobs import BlobStore
from store.database import Database
from store.settings import Settings, settings


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("CSTAR_"):
            monkeypatch.delenv(name)


def test_the_data_folder_holds_database_and_blobs_by_default(tmp_path: Path) -> None:
    chosen = Settings(data_dir=tmp_path)
    assert make_url(chosen.resolved_database_url).database == str(tmp_path / "cstar.db")
    assert chosen.resolved_blob_url == (tmp_path / "blobs").as_uri()


@pytest.mark.parametrize(
    "name",
    [
        "retention_jobs_days",
        "retention_plans_days",
        "retention_files_days",
        "audit_retention_s",
        "scrub_interval_s",
        "upload_expiry_s",
    ],
)
def test_a_time_that_no_date_can_be_reckoned_with_is_refused_at_the_start(name: str) -> None:
    for value in (1e12, float("inf"), float("nan")):
        with pytest.raises(ValidationError, match=name):
            Settings.model_validate({name: value})


def test_a_relative_data_folder_becomes_absolute(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert str(tmp_path / ".cstar") in Settings().resolved_database_url


def test_a_data_folder_with_odd_characters_holds_everything(tmp_path: Path) -> None:
    folder = tmp_path / "my data 100%"
    chosen = Settings(data_dir=folder)
    database = Database(chosen.resolved_database_url)
    with database.reading() as session:
        session.execute(text("SELECT 1"))
    database.dispose()
    with BlobStore(chosen.resolved_blob_url).stage() as staging:
        staging.commit()
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert {path.name for path in folder.iterdir()} >= {"cstar.db", "blobs"}


@pytest.mark.parametrize(
    ("variable", "attribute"),
    [
        ("CSTAR_DATABASE_URL", "resolved_database_url"),
        ("CSTAR_BLOB_URL", "resolved_blob_url"),
        ("CSTAR_BROKER_URL", "broker_url"),
    ],
)
def test_a_url_is_taken_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, variable: str, attribute: str
) -> None:
    monkeypatch.setenv(variable, "scheme://host/path")
    assert getattr(Settings(), attribute) == "scheme://host/path"


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CSTAR_DATABASE_URL", "")
    monkeypatch.setenv("CSTAR_LEASE_S", "")
    assert Settings().database_url is None
    assert Settings().lease_s == 60.0


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CSTAR_LEASE_S", "0"),
        ("CSTAR_HEARTBEAT_S", "-1"),
        ("CSTAR_MAX_ATTEMPTS", "0"),
        ("CSTAR_MAX_UPLOAD_BYTES", "0"),
        ("CSTAR_SANDBOX", "perhaps"),
        ("CSTAR_LEASE_S", "a minute"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValidationError):
        Settings()


def test_a_lease_outlives_several_heartbeats_by_default() -> None:
    assert Settings().lease_s >= 3 * Settings().heartbeat_s


def test_the_secret_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CSTAR_SECRET_KEY", "sesame")
    assert "sesame" not in repr(Settings())


def test_a_process_reads_its_settings_once(monkeypatch: pytest.MonkeyPatch) -> None:
    settings.cache_clear()
    try:
        first = settings()
        monkeypatch.setenv("CSTAR_LEASE_S", "5")
        assert settings() is first
    finally:
        settings.cache_clear()
