"""API keys: told once, kept as an HMAC."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import select, update

from store import keys
from store.database import Database, database_now
from store.keys import create_key, tenant_of
from store.settings import settings
from store.tables import ApiKey, Tenant
from tests.support.databases import contents
from tests.support.rows import add_tenant, count

SECRET = "secret of the server"


def key_for(database: Database, tenant_id: str, *, secret_key: str = SECRET) -> str:
    with database.writing() as session:
        return create_key(session, tenant_id=tenant_id, name="ci", secret_key=secret_key)


def owner(database: Database, key: str, *, secret_key: str = SECRET) -> str | None:
    with database.reading() as session:
        return tenant_of(session, key, secret_key=secret_key)


def test_a_key_opens_the_door_of_its_tenant(database: Database) -> None:
    first, second = add_tenant(database), add_tenant(database)
    keys = {first: key_for(database, first), second: key_for(database, second)}
    assert {owner(database, key) for key in keys.values()} == {first, second}
    assert owner(database, keys[first]) == first


def test_a_key_has_the_form_that_scanners_know(database: Database) -> None:
    assert re.fullmatch(r"cst_[0-9a-f]{40}", key_for(database, add_tenant(database)))


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
        keys.main(["create", "--tenant", tenant])
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
        timeout=60,
    )
    assert owner(sqlite_database, ended.stdout.removesuffix("\n")) is not None
    assert "vision" in ended.stderr
