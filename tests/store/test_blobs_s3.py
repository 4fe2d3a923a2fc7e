"""What is particular to S3: where the settings come from, and stores that move by a header."""

from __future__ import annotations

import pytest
from obstore.exceptions import BaseError as ObjectStoreError

from store.blobs import BlobStore
from tests.store.places import BUCKET, S3Server, s3_place, s3_store

CONTENT = b"bytes of a checkpoint"


def put(blob_store: BlobStore) -> str:
    with blob_store.stage() as staging:
        staging.write(CONTENT)
        return staging.commit().sha256


def test_everything_lies_under_the_prefix(s3: S3Server) -> None:
    sha256 = put(s3_store(f"s3://{BUCKET}/a/prefix", s3.variables()))
    assert f"a/prefix/sha256/{sha256[:2]}/{sha256}" in s3.stored()


def test_a_bucket_without_a_prefix_will_do(s3: S3Server) -> None:
    store = s3_store(f"s3://{BUCKET}", s3.variables())
    sha256 = put(store)
    assert f"sha256/{sha256[:2]}/{sha256}" in s3.stored()
    store.delete(sha256)


def test_two_prefixes_of_a_bucket_do_not_see_each_other(s3: S3Server) -> None:
    first, second = s3_place(s3), s3_place(s3)
    put(first.store)
    assert second.store.names("sha256/") == []


def test_an_endpoint_without_tls_must_be_allowed(s3: S3Server) -> None:
    variables = s3.variables() | {"AWS_ALLOW_HTTP": "false"}
    with pytest.raises(ObjectStoreError):
        put(s3_store(f"s3://{BUCKET}/refused", variables))


def test_a_bucket_that_is_not_there_is_an_error(s3: S3Server) -> None:
    with pytest.raises((ObjectStoreError, OSError)):
        put(s3_store("s3://another-bucket", s3.variables()))


def test_the_way_to_move_without_replacing_can_be_chosen(s3: S3Server) -> None:
    """Some stores take a header on the copy; this server knows none and copies over."""
    header = {"AWS_COPY_IF_NOT_EXISTS": "header: x-if-none-match: *"}
    sha256 = put(s3_store(f"s3://{BUCKET}/header", s3.variables() | header))
    assert f"header/sha256/{sha256[:2]}/{sha256}" in s3.stored()
