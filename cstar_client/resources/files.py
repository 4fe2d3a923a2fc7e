"""`client.files`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from cstar_client import downloads, lists, uploads
from cstar_client.documents import File, Purpose, Reference, segment
from cstar_client.downloads import Content
from cstar_client.transport import Transport
from cstar_client.uploads import OnProgress


@dataclass(frozen=True)
class Files:
    """Uploaded files."""

    transport: Transport

    def upload(
        self, path: str | Path, *, purpose: Purpose, on_progress: OnProgress | None = None
    ) -> File:
        """Upload a file; one that was interrupted goes on when it is called again."""
        return uploads.send(self.transport, Path(path), purpose, on_progress)

    def get(self, file: Reference) -> File:
        """Return the record of a file."""
        return cast(File, self.transport.get(f"/v1/files/{segment(file)}"))

    def list(self) -> Iterator[File]:
        """Yield all files, newest first."""
        return lists.rows(self.transport, "/v1/files")

    def delete(self, file: Reference) -> None:
        """Delete a file that nothing uses; raises Conflict, which says what does."""
        self.transport.send("DELETE", f"/v1/files/{segment(file)}")

    def download(
        self, file: Reference, target: str | Path, *, on_progress: OnProgress | None = None
    ) -> Path:
        """Save a file's bytes at `target`; raises DigestError if they are others."""
        found = self.get(file)
        content = Content(f"/v1/files/{found['id']}/content", found["bytes"], found["sha256"])
        return downloads.save(self.transport, content, Path(target), on_progress=on_progress)
