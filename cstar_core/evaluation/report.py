"""The sections that every report has, whether a network was compressed or evaluated as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from cstar_core.attacks import ThreatModel
from cstar_core.environment import environment
from cstar_core.evaluation.settings import EvaluationSettings
from cstar_core.evaluation.targets import Target
from cstar_core.evaluation.verdict import brief, verdict

FORMAT = "cstar-report"
VERSION = 2

NAMES = {
    "compression": {"before": "The uploaded network", "after": "The compressed network"},
    "evaluation": {"before": "The baseline", "after": "The network"},
}
LIMITS = (
    "An attack that fails proves nothing: attacked accuracy is an upper bound, certified accuracy "
    "a lower one, and the truth lies between them. The bounds are loose: 0 % certified is usual "
    "for networks that were not trained by bounds.",
    "The figures hold for the stated norm and epsilon and for images like those of the test "
    "split, for no other attacker and no other data.",
    "Corruptions were generated here after the idea of Hendrycks and Dietterich (2019); the "
    "figures are not comparable with published CIFAR-10-C ones.",
    "Latencies were measured on this machine; only their ratios mean anything elsewhere.",
)


@dataclass(frozen=True)
class Footprint:
    """What a network costs: learnable parameters, MACs for one image, bytes of its weights."""

    parameters: int
    macs: int
    bytes: int


def common_sections(
    kind: Literal["compression", "evaluation"],
    *,
    evaluation: Mapping[str, Any],
    settings: EvaluationSettings,
    targets: Sequence[Target],
    footprints: Mapping[str, Footprint],
    latency: Mapping[str, Any],
    split_sha256: str,
    size: str = "",
) -> dict[str, Any]:
    """The sections common to both kinds, JSON data; the caller adds its own.

    `evaluation` is what `cstar_core.evaluation.run.evaluate` returned, `footprints` those of the
    networks in it, `latency` the section of that name, `size` in words how small the network has
    become.
    """
    judged = verdict(evaluation, targets, threat=settings.threat, size=size, names=NAMES[kind])
    return {
        "format": FORMAT,
        "version": VERSION,
        "kind": kind,
        "verdict": judged,
        "result": {
            "targets": [target.to_json() for target in targets],
            "verdict": brief(judged),
            **{
                name: None
                if name not in footprints
                else figures(evaluation[name], footprints[name], _eager(latency, name))
                for name in ("before", "after")
            },
        },
        "threat_model": threat_model(settings.threat),
        "evaluation": dict(evaluation),
        "latency": dict(latency),
        "seed": settings.seed,
        "split_sha256": split_sha256,
        "environment": environment(torch.get_num_threads()),
        "limits": list(LIMITS),
    }


def threat_model(threat: ThreatModel) -> dict[str, Any]:
    """Against whom (evaluation.md, rule 1)."""
    return {
        "norm": threat.norm,
        "epsilon": threat.epsilon,
        "pixel_range": [0, 1],
        "attacker": "white-box, untargeted goal",
    }


def figures(
    assessment: Mapping[str, Any], footprint: Footprint, latency: Mapping[str, Any]
) -> dict[str, Any]:
    """One network in a job's result: its size, its speed in eager PyTorch, its accuracies."""
    robust = {_short_name(assessment[key]): assessment[key] for key in ("pgd", "autoattack")}
    return {
        "parameters": footprint.parameters,
        "macs": footprint.macs,
        "bytes": footprint.bytes,
        "latency_ms": dict(latency),
        "clean_accuracy": _plain(assessment["clean"]),
        "robust_accuracy": {name: _plain(figure) for name, figure in robust.items()},
    }


def _eager(latency: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    timed: Mapping[str, Any] = latency["runtimes"]["torch"][name]
    return timed


def _short_name(figure: Mapping[str, Any]) -> str:
    """AutoAttack standard is called by its short name; anything else for what it is."""
    return "autoattack" if figure["name"] == "autoattack-standard" else str(figure["name"])


def _plain(figure: Mapping[str, Any]) -> dict[str, Any]:
    return {name: figure[name] for name in ("value", "n", "interval", "label") if name in figure}
