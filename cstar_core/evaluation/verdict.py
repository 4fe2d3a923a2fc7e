"""The verdict of a report: are the targets met, and can the figures be believed?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from cstar_core.attacks import ThreatModel
from cstar_core.evaluation import reliability
from cstar_core.evaluation.reliability import Flag
from cstar_core.evaluation.targets import Target

Findings = Mapping[str, Any]
"""Section `evaluation` of a report."""

NAMED = ("before", "after")
Outcome = Literal["met", "missed", "undecided", "none"]
_ATTACKS = {"autoattack-standard": "AutoAttack"}
_OUTCOMES: dict[Outcome, str] = {
    "met": "Every target is met.",
    "undecided": "Too few examples decide whether every target is met.",
    "missed": "Not every target is met.",
    "none": "No target was set.",
}


def verdict(
    evaluation: Findings,
    targets: Sequence[Target],
    *,
    threat: ThreatModel,
    size: str = "",
    names: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Section `verdict` of a report; `size` says in words how small the network has become.

    `names` are what reasons call `before` and `after`.

    Any flag, of either network, makes the figures `unreliable` (evaluation.md, rule 7): a change
    between two networks can be believed no more than the figures of either. What drift and the
    screen of the weights found are `warnings`: they say nothing of the attacks.
    """
    flags = _flags(evaluation)
    found = outcome(targets)
    trust = "unreliable" if flags else "reliable"
    return {
        "targets": found,
        "reliability": trust,
        "label": _label(evaluation),
        "headline": _headline(evaluation, found, trust, threat=threat, size=size),
        "reasons": _reasons(flags, names or {}),
        "flags": flags,
        "warnings": _warnings(evaluation),
        "invariants": _invariants(evaluation),
    }


def brief(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a verdict that a job's document shows."""
    return {name: verdict[name] for name in ("targets", "reliability", "label", "headline")}


def outcome(targets: Sequence[Target]) -> Outcome:
    """One word for all targets."""
    if not targets:
        return "none"
    missed = [target for target in targets if not target.met]
    if not missed:
        return "met"
    return "undecided" if all(target.undecided for target in missed) else "missed"


def _flags(evaluation: Findings) -> list[dict[str, str]]:
    return [
        {**flag, "model": name}
        for name in NAMED
        if evaluation[name] is not None
        for flag in evaluation[name]["flags"]
    ]


def _reasons(flags: Sequence[Mapping[str, str]], names: Mapping[str, str]) -> list[str]:
    """In words, one sentence for each kind of sign and network."""
    reasons = []
    for name in NAMED:
        found = [
            Flag(code=flag["code"], detail=flag["detail"])  # type: ignore[arg-type]
            for flag in flags
            if flag["model"] == name
        ]
        reasons += [
            f"{names.get(name, name)}: {reason}" for reason in reliability.verdict(found).reasons
        ]
    return reasons


def _warnings(evaluation: Findings) -> list[str]:
    gates = [evaluation[gate] for gate in ("drift", "spectra") if evaluation[gate] is not None]
    return [flag["detail"] for gate in gates for flag in gate["flags"]]


def _invariants(evaluation: Findings) -> list[dict[str, Any]]:
    return [
        {**evaluation[name]["certified"]["invariant"], "model": name}
        for name in NAMED
        if evaluation[name] is not None and evaluation[name]["certified"]["invariant"] is not None
    ]


def _label(evaluation: Findings) -> str:
    """`screening` as soon as one of the headline figures is one."""
    headline = (evaluation["after"][piece] for piece in ("clean", "pgd", "autoattack"))
    return "screening" if any("label" in figure for figure in headline) else "result"


def _headline(
    evaluation: Findings, found: Outcome, trust: str, *, threat: ThreatModel, size: str
) -> str:
    after = evaluation["after"]
    clean, attacked = after["clean"], after["autoattack"]
    norm = {"linf": "L-inf", "l2": "L2"}[threat.norm]
    attack = _ATTACKS.get(attacked["name"], attacked["name"])
    robust = (
        f"{100 * clean['value']:.1f} % right on clean images, {100 * attacked['value']:.1f} % "
        f"under {attack} ({norm}, epsilon {threat.epsilon:.4g}, n = {attacked['n']})."
    )
    screening = (
        "So few examples make this a screening." if _label(evaluation) == "screening" else ""
    )
    believed = (
        "The figures can be relied on."
        if trust == "reliable"
        else "The robustness figures cannot be relied on."
    )
    return " ".join(part for part in (size, robust, _OUTCOMES[found], screening, believed) if part)
