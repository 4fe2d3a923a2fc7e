"""The peer of P15: a bare FastAPI route that reads the row of a job and returns its columns.

No key, no tenant, no documents, no entity tag, no waiting: what FastAPI and SQLAlchemy cost alone.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from sqlalchemy import select
from sqlalchemy.orm import Session

from store.database import Database
from store.tables import Job

app = FastAPI()
_engine = Database(os.environ["CSTAR_DATABASE_URL"]).engine


@app.get("/jobs/{job_id}")
def read_job(job_id: str) -> dict[str, Any]:
    """Return the columns of a job."""
    with Session(_engine) as session:
        statement = select(*Job.__table__.columns).where(Job.id == job_id)
        return dict(session.execute(statement).mappings().one())


def main() -> None:
    """Serve on the inherited socket named on the command line."""
    config = uvicorn.Config(app, access_log=False, log_level="warning")
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])


if __name__ == "__main__":
    main()
