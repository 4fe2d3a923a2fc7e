"""One run of Schemathesis against a service: its configuration, the command, what it found."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.fuzz import facts
from tests.fuzz.service import METRICS_TOKEN, Service

PATIENCE_S = 120.0  # only what hangs takes so long
ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "openapi.json"
# What the contract cannot say in JSON Schema (targets out of reach, a model that is not ready, a
# digest of other bytes) may refuse data that fits the schema, with one of these and no other.
_REFUSALS = ["2xx", "3xx", "401", "403", "404", "409", "412", "413", "416", "422"]

_TRACEBACK = re.compile(r"^Traceback \(most recent call last\):(?:\n.*){1,60}", re.MULTILINE)
_AT_ONCE = ['"header.Prefer" = "wait=0"']  # whether waiting works is tested elsewhere


@dataclass(frozen=True)
class Plan:
    """How much is tried, and with which `methods` where a path does not have them.

    `max_time_s` lets fuzzing and stateful testing go on until it is over.
    """

    seed: int
    examples: int
    phases: tuple[str, ...]
    methods: tuple[str, ...] = ("GET", "PUT", "POST", "DELETE", "OPTIONS", "PATCH", "TRACE")
    max_time_s: int | None = None


@dataclass(frozen=True)
class Outcome:
    """The exit status of a run (0: nothing was found), what it printed, and its report.

    `tracebacks` are those in the log of the API. `key_works` says that the key of the run was good
    to the end: without it every answer would be a 401. `never_accepted` are operations of which no
    request succeeded.
    """

    status: int
    output: str
    report: dict[str, Any]
    tracebacks: list[str]
    key_works: bool

    @property
    def never_accepted(self) -> list[str]:
        """Operations of which nothing was tried behind their checks."""
        rates = self.report.get("valid_rates", {})
        return sorted(
            operation
            for operation, phases in rates.items()
            if not any(counts["accepted"] for counts in phases.values())
        )


def run(service: Service, folder: Path, plan: Plan, *, shown: bool = False) -> Outcome:
    """Run Schemathesis on the committed document; `shown` lets its output through."""
    config = folder / "schemathesis.toml"
    config.write_text(configuration(service, folder, plan), "utf-8")
    report, told = folder / "report.json", folder / "facts.json"
    facts.write(told, service.things, url=service.url, key=service.owner_key)
    done = subprocess.run(
        _command(service, config, report, plan),
        cwd=folder,
        env={
            **os.environ,
            "SCHEMATHESIS_HOOKS": "tests.fuzz.hooks",
            "PYTHONPATH": str(ROOT),
            facts.VARIABLE: str(told),
        },
        stdout=None if shown else subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    found = json.loads(report.read_text("utf-8")) if report.exists() else {}
    log = service.process.log.read_text("utf-8", errors="replace")
    jobs = httpx.get(f"{service.url}/v1/jobs", headers=service.headers, timeout=PATIENCE_S)
    return Outcome(
        done.returncode, done.stdout or "", found, _TRACEBACK.findall(log), jobs.is_success
    )


def configuration(service: Service, folder: Path, plan: Plan) -> str:
    """Return the configuration file: all checks, both tenants' keys, and ids that exist."""
    users = folder / "users.json"
    users.write_text(json.dumps(_users(service)), "utf-8")
    lines = [
        f"request-timeout = {PATIENCE_S}",
        "[checks]",
        "enabled = true",
        f"positive_data_acceptance.expected-statuses = {json.dumps(_REFUSALS)}",
        "[auth.wfc]",
        f"path = {json.dumps(str(users))}",
        'user = "owner"',
        'peers = ["owner", "stranger"]',
        "[phases.coverage]",
        f"unexpected-methods = {json.dumps(plan.methods)}",
        "[generation]",
        'database = "none"',
        "[[operations]]",
        'include-operation-id = "get_metrics"',
        f'headers = {{ Authorization = "Bearer {METRICS_TOKEN}" }}',
        *_dictionaries(service.things.kept),
    ]
    return "\n".join(lines) + "\n"


def _users(service: Service) -> dict[str, Any]:
    keys = {"owner": service.owner_key, "stranger": service.stranger_key}
    header = "Authorization"
    return {
        "auth": [
            {"name": name, "fixedHeaders": [{"name": header, "value": f"Bearer {key}"}]}
            for name, key in keys.items()
        ]
    }


def _dictionaries(ids: dict[str, list[str]]) -> list[str]:
    values = [f"{name}.values = {json.dumps(known)}" for name, known in ids.items()]
    uses = [
        f'"{place}.{name}" = {{ dictionary = "{name}", probability = 0.8 }}'
        for name in ids
        for place in ("path", "query", "body")
    ]
    return ["[dictionaries]", *values, "[parameters]", *_AT_ONCE, *uses]


def _command(service: Service, config: Path, report: Path, plan: Plan) -> list[str]:
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config)]
    command += ["run", str(DOCUMENT), "--url", service.url, "--checks", "all"]
    command += ["--phases", ",".join(plan.phases), "--max-examples", str(plan.examples)]
    command += ["--seed", str(plan.seed), "--report-json-path", str(report), "--no-color"]
    command += ["--continue-on-failure"]
    if plan.max_time_s is not None:
        command += ["--max-time", str(plan.max_time_s)]
    return command
