"""Processes that kill themselves with SIGKILL at each step of completing an upload.

`python -m tests.api.completion_crashes FOLDER BLOB_URL`: for k = 1, 2, ... an upload whose parts
have arrived in FOLDER/k/cstar.db and BLOB_URL/k is completed by a fresh process that dies at step
k; the first that survives ends it. Prints how many died.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from itertools import count
from pathlib import Path

from sqlalchemy import event, select

from api.dependencies import Services, open_services
from api.uploads import completion
from store import blobs as blob_module
from store import uploads
from store.blobs import Disk
from store.parts import objects as object_module
from store.settings import Settings
from store.tables import Upload
from tests.store.crashes import OBJECT_STORE_CALLS, Countdown

SECRET = "tests of crashes, and nothing else"


def services_in(folder: Path, url: str) -> Services:
    """Open what a completion works with."""
    database_url = f"sqlite:///{folder / 'cstar.db'}"
    return open_services(
        Settings(data_dir=folder, database_url=database_url, blob_url=url, secret_key=SECRET)
    )


def bring(services: Services, content: bytes) -> None:
    """Let all parts of the upload that is there arrive."""
    with services.database.reading() as session:
        upload = session.scalars(select(Upload)).one()
    layout = uploads.layout_of(upload)
    for number in range(1, layout.count + 1):
        piece = content[layout.start(number) :][: layout.size(number)]
        with services.parts.write(layout, number) as writer:
            writer.write([piece])
            writer.commit()


def complete(services: Services) -> None:
    """Complete the upload that is there."""
    with services.database.reading() as session:
        upload = session.scalars(select(Upload)).one()
    claimed = completion.claim(services, upload.id, tenant_id=upload.tenant_id)
    if claimed is not None:
        completion.carry_out(services, claimed)


def die_at(services: Services, step: int) -> Countdown:
    """Have this process killed at that step of what it does from here on."""
    countdown = Countdown(step)
    for module in (blob_module, object_module):
        for name in OBJECT_STORE_CALLS:
            call = getattr(module.obstore, name)
            if not hasattr(call, "stepped"):
                setattr(module.obstore, name, countdown.before(call))
    Disk.flush = countdown.before(Disk.flush)  # type: ignore[method-assign]
    Path.replace = countdown.before(Path.replace)  # type: ignore[method-assign]
    Path.rename = countdown.before(Path.rename)  # type: ignore[method-assign]
    Path.unlink = countdown.before(Path.unlink)  # type: ignore[method-assign]
    event.listen(services.database.engine, "before_cursor_execute", countdown.step)
    event.listen(services.database.engine, "commit", countdown.step)
    return countdown


def operate(folder: Path, url: str, content: bytes, step: int) -> None:
    services = services_in(folder, url)
    bring(services, content)
    countdown = die_at(services, step)
    complete(services)
    countdown.step()


def main() -> None:
    folder, url = Path(sys.argv[1]), sys.argv[2]
    content = (folder / "content").read_bytes()
    for step in count(1):
        own = folder / str(step)
        own.mkdir()
        shutil.copy(folder / "template.db", own / "cstar.db")
        child = os.fork()  # nothing has started a thread yet
        if child == 0:
            operate(own, f"{url}/{step}", content, step)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 0:
            print(step - 1)
            return
        assert status == -signal.SIGKILL, status


if __name__ == "__main__":
    main()
