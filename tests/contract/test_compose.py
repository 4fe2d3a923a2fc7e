"""The deployment follows the code: docker-compose.yml, the Dockerfiles, and their lists.

There need not be a Docker engine where the tests run; what only an engine can show is listed in
docs/deployment.md.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from compose_spec import PyCompose
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from store.settings import Settings
from store.submit import IO_QUEUE

ROOT = Path(__file__).parents[2]
COMPOSE = (ROOT / "docker-compose.yml").read_text("utf-8")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
DOCKERFILES = sorted((ROOT / "docker").glob("Dockerfile.*"))
GUIDES = [ROOT / "docs" / name for name in ("deployment.md", "operations.md")]
TEXTS = [COMPOSE, *(path.read_text("utf-8") for path in [*DOCKERFILES, *GUIDES])]
API_REQUIREMENTS = [
    Requirement(line)
    for line in (ROOT / "docker" / "requirements-api.txt").read_text("utf-8").splitlines()
    if not line.startswith("#")
]

services = pytest.mark.parametrize("name", sorted(SERVICES))
dockerfiles = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)


def commands_of(dockerfile: str) -> list[list[str]]:
    """Return the JSON-form commands of CMD and HEALTHCHECK."""
    joined = dockerfile.replace("\\\n", " ")
    return [ast.literal_eval(found) for found in re.findall(r"CMD (\[.*\])", joined)]


def module_of(command: list[str]) -> str | None:
    """Return the module a command runs, None when it is a program of somebody else's."""
    for program, option in (("python", "-m"), ("celery", "-A")):
        if command[:1] == [program] and option in command:
            return command[command.index(option) + 1]
    return None


def queues_of(service: dict[str, Any]) -> set[str]:
    command = service.get("command", [])
    return set(command[command.index("-Q") + 1].split(",")) if "-Q" in command else set()


def healthy(service: dict[str, Any]) -> bool:
    """Say whether a service has a health check, of its own or of its image."""
    if "healthcheck" in service:
        return not service["healthcheck"].get("disable", False)
    dockerfile = service.get("build", {}).get("dockerfile")
    return dockerfile is not None and "HEALTHCHECK" in (ROOT / dockerfile).read_text("utf-8")


@services
def test_every_command_of_ours_runs_a_module_that_is_there(name: str) -> None:
    service = SERVICES[name]
    module = module_of(service.get("command", []))
    assert (module is not None) == ("build" in service)
    assert module is None or importlib.util.find_spec(module) is not None


@dockerfiles
def test_every_command_of_an_image_runs_a_module_that_is_there(path: Path) -> None:
    modules = [module_of(command) for command in commands_of(path.read_text("utf-8"))]
    assert any(modules)
    assert all(importlib.util.find_spec(module) for module in modules if module is not None)


@services
def test_every_image_is_built_here_or_pinned_to_a_tag(name: str) -> None:
    service = SERVICES[name]
    if "build" in service:
        assert (ROOT / service["build"]["dockerfile"]).is_file()
    else:
        _, _, tag = service["image"].partition(":")
        assert tag not in {"", "latest"}


def test_every_setting_that_is_named_is_one_of_the_service() -> None:
    named = {name for text in TEXTS for name in re.findall(r"CSTAR_([A-Z_]+)", text)}
    assert named <= {field.upper() for field in Settings.model_fields}


@pytest.mark.parametrize("name", ["CSTAR_SECRET_KEY", "POSTGRES_PASSWORD", "S3_SECRET_KEY"])
def test_a_secret_has_no_default(name: str) -> None:
    uses = re.findall(rf"\$\{{{name}([^}}]*)\}}", COMPOSE)
    assert uses
    assert all(use.startswith(":?") for use in uses)


def test_the_secret_of_the_keys_is_the_apis_alone() -> None:
    holders = {
        name
        for name, service in SERVICES.items()
        if "CSTAR_SECRET_KEY" in service.get("environment", {})
    }
    assert holders == {"api"}


def test_every_queue_that_jobs_are_put_into_has_a_worker() -> None:
    always = [service for service in SERVICES.values() if "profiles" not in service]
    served = set().union(*map(queues_of, always))
    assert served == {Settings.model_fields["job_queue"].default, IO_QUEUE}


@services
def test_what_a_service_waits_for_can_happen(name: str) -> None:
    for other, wish in SERVICES[name].get("depends_on", {}).items():
        if wish["condition"] == "service_healthy":
            assert healthy(SERVICES[other])
        else:
            assert wish["condition"] == "service_completed_successfully"
            assert SERVICES[other]["restart"] == "no"


@services
def test_a_service_that_stays_is_started_again_and_watched(name: str) -> None:
    service = SERVICES[name]
    if service["restart"] != "no":
        assert service["restart"] == "unless-stopped"
        assert healthy(service) or name == "scheduler"


def test_only_the_api_can_be_reached_and_only_from_this_host() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"api"}
    assert all(port.startswith("127.0.0.1:") for port in published["api"])


def test_every_volume_is_declared() -> None:
    used = {volume.split(":")[0] for one in SERVICES.values() for volume in one.get("volumes", [])}
    assert used == set(yaml.safe_load(COMPOSE)["volumes"])


@dockerfiles
def test_an_image_is_pinned_watched_and_not_run_by_root(path: Path) -> None:
    text = path.read_text("utf-8")
    assert re.search(r"^FROM [\w/.-]+:(?!latest\b)\S+$", text, re.MULTILINE)
    assert re.search(r"^USER (?!root\b|0\b)\S+$", text, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK ", text, re.MULTILINE)
    for install in re.findall(r"pip install (.*)", text):
        assert "--constraint constraints.txt" in install or install == "--no-deps ."


@dockerfiles
def test_what_an_image_copies_is_there_and_reaches_the_builder(path: Path) -> None:
    allowed = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text("utf-8"), re.MULTILINE)
    for sources in re.findall(r"^COPY (.+) \S+$", path.read_text("utf-8"), re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists()
            assert source in allowed


def third_party_imports(*packages: str) -> set[str]:
    """Return the top-level names of others' modules that the sources of `packages` import."""
    names = set()
    for source in (path for package in packages for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - set(packages)


def installed_by(requirements: list[Requirement]) -> set[str]:
    """Return the distributions that come with `requirements`, theirs included."""
    found: set[str] = set()
    waiting = [(one, extra) for one in requirements for extra in one.extras | {""}]
    while waiting:
        requirement, extra = waiting.pop()
        found.add(canonicalize_name(requirement.name))
        for line in requires(requirement.name) or []:
            needed = Requirement(line)
            wanted = needed.marker is None or needed.marker.evaluate({"extra": extra})
            if wanted and canonicalize_name(needed.name) not in found:
                waiting += [(needed, one) for one in needed.extras | {""}]
    return found


def test_the_api_image_installs_all_that_the_api_imports() -> None:
    owners = packages_distributions()
    imported = {
        canonicalize_name(owners[name][0])
        for name in third_party_imports("api", "store", "migrations")
    }
    assert imported <= installed_by(API_REQUIREMENTS)


def test_the_api_image_installs_nothing_the_package_does_not_ask_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = project["dependencies"] + project["optional-dependencies"]["otel"]
    asked = {(one.name, *one.extras) for one in map(Requirement, lines)}
    assert {(one.name, *one.extras) for one in API_REQUIREMENTS} <= asked


def test_the_api_image_is_without_torch_and_celery() -> None:
    assert not installed_by(API_REQUIREMENTS) & {"torch", "celery", "onnxruntime"}


def test_the_file_is_as_the_compose_specification_has_it() -> None:
    filled = re.sub(r"\$\{(\w+):\?[^}]*\}", r"\1", re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", COMPOSE))
    parsed = PyCompose.from_yaml(yaml.safe_dump(yaml.safe_load(filled)))  # anchors resolved
    parsed.validate()
    assert set(parsed.service_names()) == set(SERVICES)
