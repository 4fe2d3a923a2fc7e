"""Garbage and scrubbing, as the scheduler's process does them beside its passes."""

from __future__ import annotations

import logging
import os
import threading
import time
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from store import audit, idempotency, uploads
from store.blobs import folder_of
from store.database import database_now
from store.lifecycle import transition
from store.parts import Layout, open_parts
from store.states import JobState, UploadStatus
from store.tables import AuditEvent, Blob, IdempotencyKey, Job, Upload
from tests.support import rows
from tests.worker.shop import PATIENCE_S, WEIGHTS, Shop
from worker import housekeeping
from worker.housekeeping import Housekeeper


def age(shop: Shop, *, days: float = 1) -> None:
    with shop.database.writing() as session:
        then = database_now(session) - timedelta(days=days)
        session.execute(update(Blob).values(created_at=then))


def keeper(shop: Shop) -> Housekeeper:
    return Housekeeper(shop.database, shop.blobs, shop.settings)


def names(shop: Shop) -> set[str]:
    return {name.rsplit("/", 1)[1] for name in shop.blobs.names("sha256/")}


def test_collecting_removes_the_bytes_of_forgotten_blobs_and_no_others(shop: Shop) -> None:
    job_id = shop.add_job()
    forgotten = shop.put(b"nothing refers to these bytes")
    age(shop)
    young = shop.put(b"nor to these, but they have just come")
    keeper(shop).collect(orphans=True)

    assert forgotten not in names(shop)
    assert {young, shop.put(WEIGHTS)} <= names(shop)
    assert shop.job(job_id).state == JobState.QUEUED


def test_collecting_forgets_idempotency_keys_of_yesterday(shop: Shop) -> None:
    tenant_id = rows.add_tenant(shop.database)
    with shop.database.writing() as session:
        idempotency.claim(session, tenant_id=tenant_id, key="old", fingerprint="ab")
        then = database_now(session) - timedelta(hours=25)
        session.execute(update(IdempotencyKey).values(created_at=then))
    keeper(shop).collect()
    with shop.database.reading() as session:
        assert session.scalar(select(IdempotencyKey)) is None


def test_what_cannot_be_removed_for_its_age_keeps_no_garbage(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten = shop.put(b"nothing refers to these bytes")
    age(shop)

    def fails(*_: object) -> None:
        raise RuntimeError("a row that something refers to")

    monkeypatch.setattr(housekeeping, "GARBAGE_INTERVAL_S", 0.0)
    monkeypatch.setattr(housekeeping, "remove_expired", fails)
    keeper(shop).collect_when_due()
    assert forgotten not in names(shop)


def begin_upload(shop: Shop, *, expiry_s: float) -> str:
    """Open an upload, with bytes of it that nobody has touched for a day."""
    tenant_id = rows.add_tenant(shop.database)
    with shop.database.writing() as session:
        upload_id = rows.add_upload(session, tenant_id, expiry_s=expiry_s)
    layout = Layout(upload_id, (1 << 16) + 1, 1 << 16)
    with open_parts(shop.blobs).write(layout, 1) as writer:
        writer.write([b"bytes"])
        writer.commit()
    yesterday = time.time() - 86400
    for path in (folder_of(shop.blobs.url) / "uploads").iterdir():
        os.utime(path, (yesterday, yesterday))
    return upload_id


def upload_status(shop: Shop, upload_id: str) -> str | None:
    with shop.database.reading() as session:
        upload = session.get(Upload, upload_id)
        return upload and upload.status


def test_an_upload_that_is_open_is_kept_for_its_day(shop: Shop) -> None:
    upload_id = begin_upload(shop, expiry_s=86400.0)
    keeper(shop).collect(orphans=True)
    assert upload_status(shop, upload_id) == UploadStatus.OPEN
    left = sorted(shop.blobs.names("uploads/"))
    assert left == [f"uploads/{upload_id}.notes", f"uploads/{upload_id}.open"]


def test_an_upload_whose_time_is_up_ends_and_leaves_no_bytes(shop: Shop) -> None:
    upload_id = begin_upload(shop, expiry_s=-1.0)
    keeper(shop).collect()
    assert upload_status(shop, upload_id) == UploadStatus.EXPIRED
    assert shop.blobs.names("uploads/") == []


def test_an_upload_is_not_ended_while_somebody_completes_it(shop: Shop) -> None:
    upload_id = begin_upload(shop, expiry_s=-1.0)
    with shop.database.writing() as session:
        token = uploads.claim(session, session.get_one(Upload, upload_id), lease_s=60.0)
    keeper(shop).collect()
    assert upload_status(shop, upload_id) == UploadStatus.COMPLETING
    with shop.database.writing() as session:
        assert token is not None
        uploads.release(session, upload_id, token)
    keeper(shop).collect()
    assert upload_status(shop, upload_id) == UploadStatus.EXPIRED


def test_bytes_that_a_killed_process_left_of_an_upload_that_is_over_are_removed(
    shop: Shop,
) -> None:
    upload_id = begin_upload(shop, expiry_s=86400.0)
    with shop.database.writing() as session:
        uploads.cancel(session, session.get_one(Upload, upload_id))
    keeper(shop).collect()
    assert shop.blobs.names("uploads/") == []


def test_an_upload_that_has_been_over_for_a_week_is_forgotten(shop: Shop) -> None:
    upload_id = begin_upload(shop, expiry_s=-1.0)
    keeper(shop).collect()
    with shop.database.writing() as session:
        session.get_one(Upload, upload_id).finished_at = database_now(session) - timedelta(days=8)
    keeper(shop).collect()
    assert upload_status(shop, upload_id) is None


def test_an_old_job_is_removed_before_the_garbage_is_collected(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "GARBAGE_INTERVAL_S", 0.0)
    shop = shop.with_settings(retention_jobs_days=30.0)
    old, young = shop.add_job(), shop.add_job()
    with shop.database.writing() as session:
        for job_id, days in ((old, 31), (young, 29)):
            assert transition(session, job_id, JobState.CANCELLED)
            ended = database_now(session) - timedelta(days=days)
            session.get_one(Job, job_id).finished_at = ended
    keeper(shop).collect_when_due()
    with shop.database.reading() as session:
        assert session.scalars(select(Job.id)).all() == [young]


@pytest.mark.parametrize(("retention_s", "left"), [(3600.0, 1), (0.0, 2)])
def test_collecting_forgets_audit_events_that_were_kept_long_enough(
    shop: Shop, retention_s: float, left: int
) -> None:
    tenant_id = rows.add_tenant(shop.database)
    with shop.database.writing() as session:
        audit.record(session, tenant_id=tenant_id, action="old", object_id=None)
        then = database_now(session) - timedelta(hours=2)
        session.execute(update(AuditEvent).values(created_at=then))
        audit.record(session, tenant_id=tenant_id, action="young", object_id=None)
    settings = shop.settings.model_copy(update={"audit_retention_s": retention_s})
    Housekeeper(shop.database, shop.blobs, settings).collect()
    assert rows.count(shop.database, AuditEvent) == left


def test_a_blob_that_is_due_is_scrubbed_and_one_that_rotted_is_reported(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    stop, housekeeper = threading.Event(), keeper(shop)
    assert not housekeeper.scrub(stop)
    sha256 = shop.put(b"bytes that rot")
    age(shop, days=8)
    (shop.settings.data_dir.parent / "blobs" / "sha256" / sha256[:2] / sha256).write_bytes(b"rot")
    with caplog.at_level(logging.ERROR):
        assert housekeeper.scrub(stop)
    assert f"blob {sha256} is damaged" in caplog.text
    assert not housekeeper.scrub(stop)


def test_housekeeping_that_fails_is_tried_again_until_it_is_stopped(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "IDLE_S", 0.001)
    stop, housekeeper = threading.Event(), keeper(shop)
    passes: list[int] = []

    def collect() -> None:
        passes.append(1)
        if len(passes) == 1:
            raise RuntimeError("the database is away")
        stop.set()

    monkeypatch.setattr(housekeeper, "collect_when_due", collect)
    thread = threading.Thread(target=housekeeper.run, args=[stop])
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert len(passes) == 2


def test_garbage_is_collected_when_it_is_due_and_not_before(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten = shop.put(b"nothing refers to these bytes")
    age(shop)
    housekeeper = keeper(shop)
    housekeeper.collect_when_due()
    assert forgotten in names(shop)
    monkeypatch.setattr(housekeeping, "GARBAGE_INTERVAL_S", 0.0)
    keeper(shop).collect_when_due()
    assert forgotten not in names(shop)
