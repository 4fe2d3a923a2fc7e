"""API keys: told once, kept as an HMAC."""

from __future__ import annotations

import re

from sqlalchemy import select, update

from store.database import Database, database_now
from store.keys import create_key, tenant_of
from store.tables import ApiKey
from tests.support.databases import contents
from tests.support.rows import add_tenant

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
