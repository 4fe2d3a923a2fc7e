"""The Kubernetes example is valid, and says what the code does."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml  # type: ignore[import-untyped]

from api.system.metrics import render
from store.measures import JobCount, Measures
from store.settings import Settings
from tests.contract.test_compose import module_of

FOLDER = Path(__file__).parents[2] / "docker" / "kubernetes"
RULES = yaml.safe_load((FOLDER / "kustomization.yaml").read_text("utf-8"))
VERSION = "1.32"
OBJECTS: list[dict[str, Any]] = [
    found
    for name in RULES["resources"]
    for found in yaml.safe_load_all((FOLDER / name).read_text("utf-8"))
]
BUILT_IN = [found for found in OBJECTS if not found["apiVersion"].startswith("keda.sh")]
PODS = {
    found["metadata"]["name"]: found["spec"]["template"]
    for found in OBJECTS
    if found["kind"] in ("Deployment", "Job")
}
API_ALONE = {"CSTAR_SECRET_KEY", "CSTAR_RATE_LIMIT_URL", "CSTAR_METRICS_TOKEN"}

pods = pytest.mark.parametrize("name", sorted(PODS))


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in OBJECTS if one["kind"] == kind}


def container_of(name: str) -> dict[str, Any]:
    (container,) = PODS[name]["spec"]["containers"]
    return dict(container)


@pytest.mark.parametrize("found", BUILT_IN, ids=lambda o: f"{o['kind']}-{o['metadata']['name']}")
def test_an_object_is_as_the_schema_of_kubernetes_has_it(found: dict[str, Any]) -> None:
    kubernetes_validate.validate(found, VERSION, strict=True)


def test_every_file_is_part_of_the_example() -> None:
    assert {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"} == set(
        RULES["resources"]
    )


@pods
def test_a_pod_runs_a_module_that_is_there_without_any_right(name: str) -> None:
    container, spec = container_of(name), PODS[name]["spec"]
    module = module_of(container["command"])
    assert module is not None
    assert importlib.util.find_spec(module) is not None
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert {"requests", "limits"} <= set(container["resources"])


@pods
def test_secrets_come_by_reference_and_the_apis_own_go_to_it_alone(name: str) -> None:
    by_reference = {one["name"] for one in container_of(name)["env"] if "valueFrom" in one}
    plain = {one["name"]: one["value"] for one in container_of(name)["env"] if "value" in one}
    assert not {key for key in plain if re.search("SECRET|TOKEN|PASSWORD|DATABASE|BROKER", key)}
    assert bool(by_reference & API_ALONE) == (name == "api")


def test_no_secret_is_in_the_example() -> None:
    assert not of_kind("Secret")


def test_every_setting_is_one_of_the_service() -> None:
    named = {one["name"] for name in PODS for one in container_of(name)["env"]}
    named |= set(of_kind("ConfigMap")["cstar"]["data"])
    ours = {name.removeprefix("CSTAR_").lower() for name in named if name.startswith("CSTAR_")}
    assert ours <= set(Settings.model_fields)


def test_the_settings_are_such_that_a_process_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in of_kind("ConfigMap")["cstar"]["data"].items():
        monkeypatch.setenv(name, value)
    assert Settings().job_queue == "cpu.default"


def test_a_worker_has_the_time_to_drain() -> None:
    grace_s = Settings.model_fields["cancel_grace_s"].default
    for name in ("worker-io", "worker-cpu", "worker-gpu"):
        assert PODS[name]["spec"]["terminationGracePeriodSeconds"] >= grace_s + 30


def plain(name: str, setting: str) -> int:
    """Return a setting in bytes as a worker is told it, or its default."""
    told = {one["name"]: one.get("value") for one in container_of(name)["env"]}
    return int(told.get(f"CSTAR_{setting.upper()}") or Settings.model_fields[setting].default)


@pytest.mark.parametrize("name", ["worker-io", "worker-cpu"])
def test_the_jobs_of_a_pod_fit_into_it(name: str) -> None:
    command, spec = container_of(name)["command"], PODS[name]["spec"]
    jobs = int(command[command.index("-c") + 1])
    memory = container_of(name)["resources"]["limits"]["memory"].removesuffix("Gi")
    (scratch,) = spec["volumes"]
    disk = scratch["emptyDir"]["sizeLimit"].removesuffix("Gi")
    assert jobs * (plain(name, "runner_memory_bytes") + (1 << 29)) + (1 << 29) <= int(memory) << 30
    assert jobs * plain(name, "runner_disk_bytes") <= int(disk) << 30


@pytest.mark.parametrize("name", ["worker-io", "worker-cpu"])
def test_what_bubblewrap_needs_is_given_within_a_user_namespace(name: str) -> None:
    spec = PODS[name]["spec"]
    assert spec["hostUsers"] is False
    assert spec["securityContext"]["seccompProfile"] == {"type": "Unconfined"}
    assert spec["securityContext"]["appArmorProfile"] == {"type": "Unconfined"}
    assert container_of(name)["securityContext"]["procMount"] == "Unmasked"


@pytest.mark.parametrize("name", sorted(of_kind("ScaledObject")))
def test_a_prometheus_that_hears_nothing_is_not_taken_for_an_empty_queue(name: str) -> None:
    (trigger,) = of_kind("ScaledObject")[name]["spec"]["triggers"]
    assert "vector(" not in trigger["metadata"]["query"]
    assert trigger["metadata"]["ignoreNullValues"] == "false"


def test_each_device_class_has_its_deployment() -> None:
    queues = {
        name: container_of(name)["command"][container_of(name)["command"].index("-Q") + 1]
        for name in PODS
        if name.startswith("worker-")
    }
    assert queues == {"worker-io": "io", "worker-cpu": "cpu.default", "worker-gpu": "gpu.default"}
    assert container_of("worker-gpu")["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_a_disruption_leaves_the_api_up_and_takes_one_worker_at_a_time() -> None:
    budgets = of_kind("PodDisruptionBudget")
    assert budgets["api"]["spec"]["minAvailable"] == 1
    for name in ("worker-io", "worker-cpu", "worker-gpu"):
        assert budgets[name]["spec"]["maxUnavailable"] == 1
    for name, budget in budgets.items():
        assert budget["spec"]["selector"]["matchLabels"] == PODS[name]["metadata"]["labels"]


@pytest.mark.parametrize("name", sorted(of_kind("ScaledObject")))
def test_a_scaler_asks_for_a_metric_that_the_service_tells(name: str) -> None:
    scaler = of_kind("ScaledObject")[name]["spec"]
    (trigger,) = scaler["triggers"]
    (metric,) = re.findall(r"(cstar_\w+)\{([^}]*)\}", trigger["metadata"]["query"])
    labels = set(re.findall(r"(\w+)!?=", metric[1]))
    count = (JobCount("cpu.default", "compress", "running", 1),)
    nothing: dict[str, Any] = {
        key: {} for key in ("oldest_wait_s", "errors", "attempts", "workers", "webhook_deliveries")
    }
    zeros: dict[str, Any] = dict.fromkeys(
        (
            "expired_leases",
            "outbox_messages",
            "outbox_lag_s",
            "blobs",
            "blob_bytes",
            "damaged_blobs",
            "webhook_lag_s",
        ),
        0,
    )
    told = render(Measures(jobs=count, recent=(), **nothing, **zeros), {}).decode()
    (line,) = [line for line in told.splitlines() if line.startswith(f"{metric[0]}{{")]
    assert all(f'{label}="' in line for label in labels)
    assert scaler["scaleTargetRef"]["name"] in PODS
    assert scaler["minReplicaCount"] < scaler["maxReplicaCount"]
