"""API keys: told once, kept as an HMAC."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from store.database import Database, database_now
from store.keys import (
    KeyInvalid,
    KeyRefused,
    authenticate,
    create_key,
    issue,
    revoke,
    rotate,
    tenant_of,
    tokens,
)
from store.keys import __main__ as command
from store.settings import settings
from store.tables import ApiKey, AuditEvent, Tenant
from tests.support.databases import contents
from tests.support.rows import add_tenant, count, now
from tests.support.threads import PATIENCE_S, await_lock_wait, in_background

SECRET = "secret of the server"


def key_for(
    database: Database, tenant_id: str, *, secret_key: str = SECRET, name: str = "ci"
) -> str:
    with database.writing() as session:
        return create_key(session, tenant_id=tenant_id, name=name, secret_key=secret_key)


def owner(database: Database, key: str, *, secret_key: str = SECRET) -> str | None:
    with database.reading() as session:
        return tenant_of(session, key, secret_key=secret_key)


def test_a_key_opens_the_door_of_its_tenant(database: Database) -> None:
    first, second = add_tenant(database), add_tenant(database)
    keys = {first: key_for(database, first), second: key_for(database, second)}
    assert {owner(database, key) for key in keys.values()} == {first, second}
    assert owner(database, keys[first]) == first


def test_a_key_has_the_form_that_scanners_know(database: Database) -> None:
    assert re.fullmatch(r"cst_[0-9A-Za-z]{36}", key_for(database, add_tenant(database)))


@pytest.mark.parametrize("position", [4, 12, 33, 34, 39])
def test_a_key_with_a_wrong_character_is_known_without_looking(position: int) -> None:
    key = tokens.new_key()
    wrong = "x" if key[position] != "x" else "y"
    assert tokens.is_well_formed(key)
    assert not tokens.is_well_formed(key[:position] + wrong + key[position + 1 :])


@pytest.mark.parametrize("cut", [slice(None, -1), slice(1, None), slice(None, 4)])
def test_a_key_that_was_cut_off_is_known_without_looking(cut: slice) -> None:
    assert not tokens.is_well_formed(tokens.new_key()[cut])


def test_the_checksum_is_the_crc_32_of_the_random_part() -> None:
    assert tokens.checksum("123456789") == "3jZRME"  # 0xCBF43926, the check value of CRC-32


def test_a_key_from_before_the_checksum_opens_the_door_still(database: Database) -> None:
    tenant_id, old = add_tenant(database), "cst_" + "0a" * 20
    with database.writing() as session:
        row, _ = issue(session, tenant_id=tenant_id, name="old", secret_key=SECRET)
        row.digest = tokens.digest(old, SECRET)
    assert owner(database, old) == tenant_id


def why_not(database: Database, key: str) -> str:
    with database.reading() as session, pytest.raises(KeyRefused) as refused:
        authenticate(session, key, secret_key=SECRET)
    return refused.value.reason


def test_a_refused_key_is_told_why(database: Database) -> None:
    tenant_id = add_tenant(database)
    with database.writing() as session:
        made = {"tenant_id": tenant_id, "name": "ci", "secret_key": SECRET}
        _, expired = issue(session, **made, lifetime_s=0.0)
        row, revoked = issue(session, **made)
        revoke(session, row)
    assert why_not(database, expired) == "expired"
    assert why_not(database, revoked) == "revoked"
    assert why_not(database, tokens.new_key()) == "unknown"
    assert why_not(database, "cst_?") == "malformed"


def rotated(
    database: Database, overlap_s: float, lifetime_s: float | None = None
) -> tuple[str, str]:
    """Make a key and rotate it; returns the old one and the new one."""
    tenant_id = add_tenant(database)
    with database.writing() as session:
        made = {"tenant_id": tenant_id, "name": "ci", "secret_key": SECRET}
        row, old = issue(session, **made, scopes=["jobs:read"], lifetime_s=lifetime_s)
        _, new = rotate(session, row, secret_key=SECRET, overlap_s=overlap_s, created_by=row.id)
    return old, new


def row_of(database: Database, key: str) -> ApiKey:
    with database.reading() as session:
        return session.scalars(
            select(ApiKey).where(ApiKey.digest == tokens.digest(key, SECRET))
        ).one()


def test_a_rotated_key_stays_good_for_the_overlap_and_no_longer(database: Database) -> None:
    overlap, before = timedelta(hours=1), now(database)
    old, new = rotated(database, overlap_s=3600.0)
    assert owner(database, old) == owner(database, new) is not None
    assert before + overlap <= row_of(database, old).expires_at <= now(database) + overlap


def test_a_rotation_without_an_overlap_ends_the_old_key_at_once(database: Database) -> None:
    old, new = rotated(database, overlap_s=0.0)
    assert why_not(database, old) == "revoked"
    assert owner(database, new) is not None


def test_a_rotation_prolongs_nothing(database: Database) -> None:
    old, _ = rotated(database, overlap_s=3600.0, lifetime_s=60.0)
    row = row_of(database, old)
    assert row.expires_at - row.created_at == timedelta(seconds=60)


def test_a_key_that_is_rotated_twice_passes_on_the_lifetime_it_was_given(
    database: Database,
) -> None:
    old, _ = rotated(database, overlap_s=1.0, lifetime_s=3600.0)
    with database.writing() as session:
        row = session.get_one(ApiKey, row_of(database, old).id)
        _, new = rotate(session, row, secret_key=SECRET, overlap_s=0.0, created_by=None)
    made = row_of(database, new)
    assert made.expires_at - made.created_at == timedelta(hours=1)
    assert (made.scopes, made.rotated_from) == (["jobs:read"], row.id)


def test_a_key_that_is_being_revoked_is_not_rotated(database: Database) -> None:
    key = key_for(database, add_tenant(database))
    row = row_of(database, key)

    def replaced() -> None:
        with database.writing() as session:
            found = session.get_one(ApiKey, row.id)
            rotate(session, found, secret_key=SECRET, overlap_s=60.0, created_by=None)

    with database.writing() as session:
        revoke(session, session.get_one(ApiKey, row.id))
        with in_background(replaced) as future:
            if database.engine.dialect.name == "postgresql":
                await_lock_wait(database, future)
            session.commit()
            with pytest.raises(KeyInvalid):
                future.result(PATIENCE_S)
    assert count(database, ApiKey) == 1


def test_a_key_that_has_ended_is_not_rotated(database: Database) -> None:
    old, _ = rotated(database, overlap_s=0.0)
    with database.writing() as session:
        row = session.get_one(ApiKey, row_of(database, old).id)
        with pytest.raises(KeyInvalid):
            rotate(session, row, secret_key=SECRET, overlap_s=0.0, created_by=None)


def test_two_keys_of_a_tenant_differ_and_both_work(database: Database) -> None:
    tenant_id = add_tenant(database)
    keys = {key_for(database, tenant_id) for _ in range(2)}
    assert len(keys) == 2
    assert {owner(database, key) for key in keys} == {tenant_id}


def test_an_unknown_key_opens_nothing(database: Database) -> None:
    key_for(database, add_tenant(database))
    assert owner(database, "cst_" + "0" * 40) is None
    assert owner(database, "") is None


def test_a_revoked_key_opens_nothing(database: Database) -> None:
    key = key_for(database, add_tenant(database))
    with database.writing() as session:
        session.execute(update(ApiKey).values(revoked_at=database_now(session)))
    assert owner(database, key) is None


def test_a_key_opens_nothing_under_another_secret(database: Database) -> None:
    key = key_for(database, add_tenant(database))
    assert owner(database, key, secret_key="another") is None


def test_the_key_itself_is_kept_nowhere(database: Database) -> None:
    key = key_for(database, add_tenant(database))
    assert key.removeprefix("cst_") not in repr(contents(database))


def test_what_is_kept_depends_on_the_secret(database: Database) -> None:
    tenant_id = add_tenant(database)
    key_for(database, tenant_id)
    with database.reading() as session:
        [digest] = session.scalars(select(ApiKey.digest))
    assert re.fullmatch(r"[0-9a-f]{64}", digest)


def environment(database: Database) -> dict[str, str]:
    url = database.engine.url.render_as_string(hide_password=False)
    return {"CSTAR_DATABASE_URL": url, "CSTAR_SECRET_KEY": SECRET}


@pytest.fixture
def create(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[[str], str]]:
    """`python -m store.keys create --tenant NAME` in this process; returns what it prints."""
    for name, value in environment(database).items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()

    def run(tenant: str) -> str:
        command.main(["create", "--tenant", tenant])
        return capsys.readouterr().out.rstrip("\n")

    yield run
    settings.cache_clear()


def test_the_command_makes_a_key_that_opens_the_door_of_its_tenant(
    database: Database, create: Callable[[str], str]
) -> None:
    tenant_id = owner(database, create("vision"))
    with database.reading() as session:
        assert session.get_one(Tenant, tenant_id).name == "vision"


def test_the_command_gives_a_tenant_that_is_there_another_key(
    database: Database, create: Callable[[str], str]
) -> None:
    first, second = create("vision"), create("vision")
    assert first != second
    assert owner(database, first) == owner(database, second)
    assert count(database, Tenant) == 1


def test_the_command_tells_tenants_apart(database: Database, create: Callable[[str], str]) -> None:
    assert owner(database, create("vision")) != owner(database, create("speech"))


def test_the_command_without_the_secret_says_what_is_missing(
    database: Database, create: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CSTAR_SECRET_KEY")
    with pytest.raises(SystemExit, match="CSTAR_SECRET_KEY is not set"):
        create("vision")
    assert count(database, Tenant) == 0


def test_the_key_is_all_that_the_command_prints(sqlite_database: Database) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "store.keys", "create", "--tenant", "vision"],
        env=os.environ | environment(sqlite_database),
        check=True,
        capture_output=True,
        text=True,
    )
    assert owner(sqlite_database, ended.stdout.removesuffix("\n")) is not None
    assert "vision" in ended.stderr


def run(database: Database, *arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(database).items():
            patch.setenv(name, value)
        settings.cache_clear()
        command.main(arguments)
    settings.cache_clear()
    return capsys.readouterr().out.rstrip("\n")


def test_the_command_limits_lists_and_revokes(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = ["--scope", "jobs:read", "--scope", "files:write", "--expires-in", "90d"]
    key = run(database, "create", "--tenant", "vision", *limits, capsys=capsys)
    row = row_of(database, key)
    assert row.scopes == ["jobs:read", "files:write"]
    assert row.expires_at - row.created_at == timedelta(days=90)

    listed = run(database, "list", "--tenant", "vision", capsys=capsys)
    expected = [row.id, key[:10], "vision", "first key", "jobs:read,files:write"]
    assert listed.split("\t")[:5] == expected
    run(database, "revoke", row.id, capsys=capsys)
    assert why_not(database, key) == "revoked"
    assert "revoked" in run(database, "list", capsys=capsys)


def test_the_command_shows_no_name_that_would_reach_the_terminal(
    sqlite_database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    key_for(sqlite_database, add_tenant(sqlite_database), name="ci\n\x1b[2Jkey_1\tno end")
    assert run(sqlite_database, "list", capsys=capsys).replace("\t", "").isprintable()


@pytest.mark.parametrize(
    "wrong",
    [["--scope", "jobs"], ["--expires-in", "soon"], ["--expires-in", "999999d"]],
)
def test_the_command_refuses_what_it_cannot_read(
    sqlite_database: Database, wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(sqlite_database, "create", "--tenant", "vision", *wrong, capsys=capsys)
    assert wrong[1] in capsys.readouterr().err
    assert count(sqlite_database, Tenant) == 0


def test_the_command_sets_shows_and_takes_back_the_limits_of_a_tenant(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    run(database, "create", "--tenant", "vision", capsys=capsys)
    usual = run(database, "quota", "--tenant", "vision", capsys=capsys)
    changed = run(database, "quota", "--tenant", "vision", "jobs=10", "keys=0", capsys=capsys)
    assert {"jobs\t10", "keys\tno limit"} <= set(changed.splitlines())
    back = ["jobs=default", "keys=default"]
    assert run(database, "quota", "--tenant", "vision", *back, capsys=capsys) == usual
    with database.reading() as session:
        told = session.scalars(select(AuditEvent.action).order_by(AuditEvent.id)).all()
    assert told == ["create_api_key", "set_quota", "set_quota"]


@pytest.mark.parametrize("wrong", ["dreams=1", "jobs=-1", "jobs"])
def test_the_command_refuses_a_limit_that_there_is_not(
    sqlite_database: Database, wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(sqlite_database, "quota", "--tenant", "vision", wrong, capsys=capsys)
    assert "models" in capsys.readouterr().err
