"""Blob stores of each kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.store.places import Place, S3Server, local_place, s3_place, s3_server


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(scope="session", params=["local disk", "s3"])
def new_place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Place]:
    """Makes empty blob stores of each kind."""
    if request.param == "s3":
        return partial(s3_place, request.getfixturevalue("s3"))
    return lambda: local_place(tmp_path_factory.mktemp("blobs"))


@pytest.fixture
def place(new_place: Callable[[], Place]) -> Place:
    """An empty blob store of each kind."""
    return new_place()


@pytest.fixture
def local(tmp_path: Path) -> Place:
    """An empty blob store on local disk."""
    return local_place(tmp_path / "blobs")
