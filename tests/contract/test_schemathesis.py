"""Made-up requests get the answers of openapi.json; `make fuzz` tries the same for longer."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.campaign import Plan, run
from tests.fuzz.fresh import MAKERS
from tests.fuzz.service import service

PHASES = ("examples", "coverage", "fuzzing", "stateful")
PLAN = Plan(seed=1, examples=2, phases=PHASES, methods=("PATCH", "TRACE"))


def test_made_up_requests_get_the_answers_that_are_promised(tmp_path: Path) -> None:
    with service(tmp_path) as running:
        found = run(running, tmp_path, PLAN)
        assert found.status == 0, found.output
        assert found.report["operations"]["tested"] == found.report["operations"]["total"]
        assert found.tracebacks == [], found.output
        assert found.key_works
        assert not set(MAKERS) & set(found.never_accepted)
