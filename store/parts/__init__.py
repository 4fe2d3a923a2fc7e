"""The bytes of uploads in parts, until they are the bytes of a blob.

On a local disk every part is written at its place in one file, which becomes the blob by being
renamed; in an object store parts are objects, which are read once and written as the blob.
Neither needs memory in proportion to a part or a file.
"""

from store.blobs import BlobStore, folder_of, open_object_store
from store.parts.contracts import FoundPart, Layout, PartsLost, PartStore, PartWriter, Sealed
from store.parts.disk import DiskParts
from store.parts.objects import ObjectParts

__all__ = [
    "FoundPart",
    "Layout",
    "PartStore",
    "PartWriter",
    "PartsLost",
    "Sealed",
    "open_parts",
]


def open_parts(blobs: BlobStore) -> PartStore:
    """Return where parts are kept beside blobs."""
    if blobs.url.startswith("file://"):
        return DiskParts(blobs, folder_of(blobs.url))
    return ObjectParts(blobs, open_object_store(blobs.url))
