"""Samples of `report.json`, version 2, with every part that a report can have."""

from __future__ import annotations

import copy
import math
from typing import Any, Literal

from cstar_core.evaluation.statistics import Accuracy, PairedComparison

Kind = Literal["compression", "evaluation"]
Verdict = Literal["met", "missed", "undecided", "unreliable"]
Plan = Literal["ranks", "channels"]

EPSILON = 8 / 255
CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
KINDS = (
    "gaussian_noise", "shot_noise", "impulse_noise", "gaussian_blur", "motion_blur", "brightness",
    "contrast", "saturate", "jpeg", "pixelate", "haze", "rotate",
)  # fmt: skip
HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def sample_report(
    *, kind: Kind = "compression", verdict: Verdict = "met", plan: Plan = "ranks", **changes: Any
) -> dict[str, Any]:
    """A whole report of this kind and outcome; `changes` replace members at the top."""
    before = _assessment(0.0)
    after = _assessment(0.011, flagged=verdict == "unreliable")
    content: dict[str, Any] = {
        "format": "cstar-report",
        "version": 2,
        "kind": kind,
        "job": {"id": "job_01m83z9y6vfx0ym5va2xdm0q08", "method": "cstar"},
        "model": {"id": "mdl_01m83z", "name": "resnet20", "weights_sha256": HASH},
        "dataset": {"id": "dst_01m83z", "name": "cifar10", "content_sha256": HASH[::-1]},
        "targets": {"compression": {"ratio": 4.0}, "robustness": {"norm": "linf"}},
        "method": {"name": "cstar", "note": "global ranks, ADMM towards them, fine-tuning"},
        "verdict": _verdict(verdict),
        "result": _result(before, after, verdict),
        "notes": ["phase admm: bfloat16 was asked for and is not used on a CPU"],
        "threat_model": {
            "norm": "linf",
            "epsilon": EPSILON,
            "pixel_range": [0, 1],
            "attacker": "white-box, untargeted goal",
        },
        "evaluation": _evaluation(before, after),
        "plan": _rank_plan() if plan == "ranks" else _channel_plan(),
        "phases": _phases(),
        "epochs": _epochs(),
        "execution": {"admm": {"device": "cpu", "precision": "float32", "compiled": False}},
        "before_fine_tuning": {
            "phase": "factorising",
            "held_out_clean_accuracy": 0.731,
            "held_out_robust_accuracy": 0.402,
            "held_out_examples": 1000,
        },
        "verification": {"examples": 10000, "correct": 8098, "disagreements": 0},
        "latency": _latency(),
        "profile": {"name": "paper", "admm": {"epochs": 40, "learning_rate": 0.05}},
        "seed": 9007199254740993,
        "split_sha256": HASH,
        "environment": {
            "python": "3.11.9",
            "libraries": {"torch": "2.13.0", "numpy": "2.3.4", "pyautoattack": "0.2.0"},
            "platform": "Linux-6.1-x86_64",
            "processors": 2,
            "threads": 2,
            "gpu": None,
        },
        "limits": [
            "Figures hold for this threat model and for images like the test split only.",
            "Certified accuracy is a lower bound; it says nothing against a network.",
        ],
    }
    if kind == "evaluation":
        content |= _without_baseline(content)
    return copy.deepcopy(content | changes)


def _figure(name: str, value: float, n: int) -> dict[str, Any]:
    accuracy = Accuracy(round(value * n), n)
    label = {"label": "screening"} if accuracy.screening else {}
    return {"name": name, "correct": accuracy.correct} | accuracy.to_json() | label


def _assessment(lost: float, *, flagged: bool = False) -> dict[str, Any]:
    flags = [{"code": "zero_gradients", "detail": "31 of 128 images have no input gradient"}]
    pgd_settings = {"name": "pgd-20", "steps": 20, "step_size": 0.125, "loss": "ce", "restarts": 1}
    return {
        "clean": _figure("clean", 0.821 - lost, 10000),
        "pgd": _figure("pgd-20", 0.512 - lost, 1000) | {"settings": pgd_settings},
        "autoattack": _figure("autoattack-standard", 0.468 - lost, 1000)
        | {
            "broken_by": {"apgd-ce": 291, "apgd-t": 42, "fab-t": 0, "square": 1},
            "flags": [],
            "settings": {
                "suite": "autoattack-standard",
                "attacks": {
                    "apgd-ce": {"n_iter": 100, "n_restarts": 1},
                    "apgd-t": {"n_iter": 100, "n_restarts": 1, "n_target_classes": 9},
                    "fab-t": {"n_iter": 100, "n_restarts": 1, "n_target_classes": 9},
                    "square": {"n_queries": 5000, "n_restarts": 1, "p_init": 0.8},
                },
                "library": "pyautoattack",
                "library_version": "0.2.0",
                "classes": 10,
                "seed": 1838279187123,
                "batch_size": 64,
            },
        },
        "worst_case": _figure("worst case", 0.467 - lost, 1000),
        "flags": flags if flagged else [],
        "curve": _curve(lost),
        "curve_settings": pgd_settings,
        "steps": {"few": "pgd-20", "many": "pgd-100", "n": 256, "broken_more": 2},
        "planted": {
            "n": 32,
            "found": 31,
            "rate": 31 / 32,
            "found_by_chance": 1,
            "required": 0.9,
            "passed": not flagged,
            "skipped": None,
        },
        "certified": _figure("certified", 0.002, 1000)
        | {"method": "interval bounds, factor chains merged", "skipped": None},
        "corruptions": _corruptions(lost),
        "through_jpeg": _figure("pgd-20 through JPEG", 0.534 - lost, 256)
        | {"quality": 75, "settings": pgd_settings},
        "per_class": [
            {"class": index, "name": name} | _plain(_class_accuracy(index, lost))
            for index, name in enumerate(CLASSES)
        ],
    }


def _plain(accuracy: Accuracy) -> dict[str, Any]:
    return {"n": accuracy.n, "correct": accuracy.correct, "value": accuracy.value}


def _class_accuracy(index: int, lost: float) -> Accuracy:
    drop = lost * (6 if index == 3 else 0.4)
    return Accuracy(round(1000 * (0.9 - 0.03 * ((index * 7) % 6) - drop)), 1000)


def _curve(lost: float) -> list[dict[str, Any]]:
    points = []
    for multiple in (0, 0.25, 0.5, 0.75, 1, 1.5, 2, 4, 8):
        value = max(0.0, (0.83 - lost) * math.exp(-0.5 * multiple) - 0.012 * multiple)
        accuracy = Accuracy(round(256 * value), 256)
        points.append({"epsilon": multiple * EPSILON} | accuracy.to_json())
    return points


def _corruptions(lost: float) -> dict[str, Any]:
    kinds = {
        kind: [
            round(max(0.08, 0.8 - lost - 0.02 * index * severity * 0.8), 3) for severity in range(5)
        ]
        for index, kind in enumerate(KINDS)
    }
    values = [value for row in kinds.values() for value in row]
    mean = sum(values) / len(values)
    return {"n": 500, "named": "generated here, not CIFAR-10-C", "mean": mean, "kinds": kinds}


def _verdict(verdict: Verdict) -> dict[str, Any]:
    unreliable = verdict == "unreliable"
    headlines = {
        "met": "4.3 times smaller; 45.7 % of images stay correct under attack, as was asked.",
        "missed": "4.3 times smaller, but only 45.7 % stay correct under attack; 50 % was asked.",
        "undecided": "4.3 times smaller; more images must be attacked to tell if 45 % is met.",
        "unreliable": "4.3 times smaller; its robustness figures cannot be trusted.",
    }
    return {
        "targets": "met" if unreliable else verdict,
        "reliability": "unreliable" if unreliable else "reliable",
        "label": "result",
        "headline": headlines[verdict],
        "reasons": ["31 of 128 images give the attack no gradient to follow."] * unreliable,
        "warnings": ["class 3 (cat) loses 6.6 points, p = 0.0001"],
        "flags": [
            {
                "code": "zero_gradients",
                "detail": "31 of 128 images have no input gradient",
                "model": "after",
            }
        ]
        * unreliable,
        "invariants": [
            {
                "name": "certified <= attacked <= clean",
                "model": model,
                "holds": True,
                "detail": "no violation among 1,000 examples",
            }
            for model in ("before", "after")
        ],
    }


def _result(before: dict[str, Any], after: dict[str, Any], verdict: Verdict) -> dict[str, Any]:
    asked = {"missed": 0.5, "undecided": 0.45}.get(verdict, 0.42)
    robust = after["autoattack"]
    met = robust["interval"][0] >= asked
    said = _verdict(verdict)
    return {
        "targets": [
            {
                "metric": "ratio",
                "requested": 4.0,
                "achieved": 4.29,
                "interval": None,
                "outcome": "met",
                "undecided": False,
                "examples_needed": None,
                "note": "",
            },
            {
                "metric": "robust_accuracy",
                "requested": asked,
                "achieved": robust["value"],
                "interval": robust["interval"],
                "outcome": "met" if met else "missed",
                "undecided": verdict == "undecided",
                "examples_needed": 18_742 if verdict == "undecided" else None,
                "note": "1000 examples do not decide it; about 18,742 would"
                * (verdict == "undecided"),
            },
        ],
        "before": _figures(before, 272_474, 41_214_000, 1_105_432, 1.0),
        "after": _figures(after, 63_510, 14_912_000, 271_200, 1.21),
        "ratio": 4.29,
        "macs_ratio": 2.764,
        "convolution_ratio": 4.41,
        "verdict": {key: said[key] for key in ("targets", "reliability", "label", "headline")},
    }


def _figures(
    found: dict[str, Any], parameters: int, macs: int, size: int, slower: float
) -> dict[str, Any]:
    keys = ("value", "n", "interval", "label")
    plain = {
        name: {key: found[name][key] for key in keys if key in found[name]}
        for name in ("clean", "pgd", "autoattack")
    }
    return {
        "parameters": parameters,
        "macs": macs,
        "bytes": size,
        "latency_ms": _timings(slower),
        "clean_accuracy": plain["clean"],
        "robust_accuracy": {"pgd-20": plain["pgd"], "autoattack": plain["autoattack"]},
    }


def _timings(slower: float) -> dict[str, Any]:
    return {
        f"batch {size}": {
            "batch_size": size,
            "median_ms": base * slower,
            "lower_quartile_ms": 0.96 * base * slower,
            "upper_quartile_ms": 1.05 * base * slower,
            "repeats": 30,
        }
        for size, base in ((1, 3.1), (32, 41.0))
    }


def _latency() -> dict[str, Any]:
    return {
        "runtimes": {
            "torch": {"before": _timings(1.0), "after": _timings(1.21)},
            "onnxruntime": {"before": _timings(0.6), "after": _timings(0.33)},
        },
        "skipped": {"openvino": "it is not installed"},
        "device": "cpu",
        "words": "smaller and faster (1.8x at batch 1 in onnxruntime), slower in torch",
        "on_device": None,
    }


def _evaluation(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    compared = {
        name: PairedComparison(only_before=b, only_after=a, n=n).to_json()
        for name, b, a, n in (
            ("clean", 301, 191, 10000),
            ("pgd", 41, 30, 1000),
            ("autoattack", 38, 27, 1000),
        )
    }
    return {
        "attacked": {
            "index": [(index * 7919) % 10000 for index in range(1000)],
            "n": 1000,
            "sha256": HASH,
            "batch_size": 128,
            "start_seeds": [9223372036854775000 + index for index in range(8)],
        },
        "before": before,
        "after": after,
        "paired": compared,
        "transfer": _figure("transfer", 0.621, 1000)
        | {"settings": {"steps": 20, "loss": "margin"}, "source": "before"},
        "drift": _drift(),
        "spectra": {
            "layers": [
                {
                    "name": layer["name"],
                    "top_singular_value": 3.2,
                    "median_singular_value": 0.41,
                    "largest_channel": 3,
                    "channel_score": 2.1,
                }
                for layer in _rank_plan()["layers"]
            ],
            "flags": [],
            "limits": ["A screen of weights sees crude backdoors only."],
        },
    }


def _drift() -> dict[str, Any]:
    classes = []
    for index, name in enumerate(CLASSES):
        before, after = _class_accuracy(index, 0.0), _class_accuracy(index, 0.011)
        lost = before.correct - after.correct
        paired = PairedComparison(only_before=lost + 19, only_after=19, n=1000).to_json()
        figures = {"before": before.value, "after": after.value}
        classes.append({"class": index, "name": name} | paired | figures)
    return {
        "agreement": 0.9312,
        "agreement_when_both_wrong": 0.811,
        "n": 10000,
        "classes": classes,
        "most_changed": [3, 1, 7],
        "flags": [{"code": "class_shift", "detail": "class 3 (cat) loses 6.6 points, p = 0.0001"}],
        "limits": ["Test set only: a trigger that it does not contain is not seen."],
    }


def _rank_plan() -> dict[str, Any]:
    layers = [_layer("conv1", (16, 3, 3, 3), 1024, reason="the first layer stays dense")]
    for stage, (width, area) in enumerate(((16, 1024), (32, 256), (64, 64)), start=1):
        for block in range(3):
            for conv in (1, 2):
                first = block == 0 and conv == 1 and stage > 1
                inputs = width // 2 if first else width
                ranks = (max(2, width * (7 - stage) // 12), max(2, inputs * (6 - block) // 12))
                name = f"layer{stage}.{block}.conv{conv}"
                layers.append(_layer(name, (width, inputs, 3, 3), area, ranks=ranks))
    layers.append(_layer("linear", (10, 64, 1, 1), 1, reason="the last layer stays dense"))
    return {
        "name": "energy-2.0",
        "strategy": "energy",
        "scope": "all",
        "layers": layers,
        "budgets": [{"unit": "parameters", "limit": 68118}],
        "parameters": 63510,
        "dense_parameters": 272474,
        "macs": 14912000,
        "dense_macs": 41214000,
    }


def _layer(
    name: str,
    shape: tuple[int, int, int, int],
    area: int,
    *,
    ranks: tuple[int, int] | None = None,
    reason: str = "",
) -> dict[str, Any]:
    outputs, inputs, height, width = shape
    dense = math.prod(shape)
    out, inner = ranks or (0, 0)
    core = out * inner * height * width
    small = outputs * out + core + inputs * inner if ranks else dense
    return {
        "name": name,
        "kind": "conv" if height > 1 else "linear",
        "method": "tucker2" if ranks else "dense",
        "ranks": list(ranks) if ranks else None,
        "shape": list(shape),
        "energy_kept": 0.94 if ranks else 1.0,
        "parameters": small,
        "macs": small * area,
        "dense_parameters": dense,
        "dense_macs": dense * area,
        "reason": reason,
    }


def _channel_plan() -> dict[str, Any]:
    layers, groups, members = [], [], []
    for index, (name, kept, size) in enumerate((("conv1", 11, 16), ("conv2", 20, 32))):
        layers.append(
            {
                "name": name,
                "kind": "conv",
                "inputs": 3 if index == 0 else 11,
                "outputs": kept,
                "dense_inputs": 3 if index == 0 else 16,
                "dense_outputs": size,
                "parameters": 297 * (index + 1),
                "macs": 304128,
                "dense_parameters": 432 * (index + 1),
                "dense_macs": 442368,
            }
        )
        groups.append({"name": name, "size": size, "kept": list(range(kept)), "reason": ""})
        members.append({"name": name, "role": "conv", "inputs": "", "outputs": name, "spread": 1})
    return {
        "name": "ranked",
        "strategy": "ranked",
        "groups": groups,
        "members": members,
        "layers": layers,
        "budgets": [{"unit": "parameters", "limit": 68118}],
        "parameters": 63510,
        "dense_parameters": 272474,
        "macs": 14912000,
        "dense_macs": 41214000,
    }


def _phases() -> dict[str, Any]:
    named = ("energy-1.0", "energy-2.0", "fisher", "uniform", "vbmf", "equal-share")
    return {
        "planning": {
            "candidates": [
                {
                    "name": name,
                    "strategy": name.split("-")[0],
                    "parameters": 68000 - 700 * ((index * 5) % 6),
                    "macs": 15_000_000 + 90_000 * index,
                    "bytes": 271000,
                    "latency_ms": None,
                    "ratio": 272474 / (68000 - 700 * ((index * 5) % 6)),
                    "held_out_clean_accuracy": 0.52 - 0.04 * index,
                    "held_out_robust_accuracy": 0.31 - 0.002 * index - 0.05 * (index > 2),
                }
                for index, name in enumerate(named)
            ],
            "chosen": "energy-2.0",
        },
        "admm": {"mean_gap": 0.006, "gap_by_layer": {"layer1.0.conv1": 0.004}, "notes": []},
    }


def _epochs() -> dict[str, Any]:
    def epoch(at: int, gap: float | None = None) -> dict[str, float]:
        metrics = {
            "loss": 2.1 * math.exp(-0.06 * at) + 0.4,
            "held_out_clean_accuracy": 0.83 - 0.4 * math.exp(-0.12 * at),
            "held_out_robust_accuracy": 0.50 - 0.25 * math.exp(-0.1 * at),
            "learning_rate": 0.05,
        }
        return (
            metrics
            if gap is None
            else metrics | {"admm_gap": gap, "admm_largest_gap": 2 * gap, "gap/conv2": gap}
        )

    return {
        "dense_training": [epoch(at) for at in range(1, 11)],
        "admm": [epoch(at, 0.6 * math.exp(-0.12 * (at - 11))) for at in range(11, 41)],
        "fine_tuning": [epoch(at) for at in range(41, 61)],
    }


def _without_baseline(content: dict[str, Any]) -> dict[str, Any]:
    """What differs where one network is evaluated and none is compressed."""
    evaluation = content["evaluation"] | {
        "before": None,
        "paired": None,
        "transfer": None,
        "drift": None,
    }
    result = content["result"] | {"before": None}
    result = {k: v for k, v in result.items() if not k.endswith("ratio")}
    result["targets"] = [t for t in result["targets"] if t["metric"] != "ratio"]
    runtimes = {
        name: {"after": timings["after"]}
        for name, timings in content["latency"]["runtimes"].items()
    }
    verdict = content["verdict"]
    invariants = [i for i in verdict["invariants"] if i["model"] == "after"]
    headline = "45.7 % of images stay correct under attack."
    return {
        "method": None,
        "plan": None,
        "phases": {},
        "epochs": {},
        "execution": {},
        "before_fine_tuning": None,
        "verification": None,
        "profile": None,
        "evaluation": evaluation,
        "result": result,
        "latency": content["latency"] | {"runtimes": runtimes, "words": "3.8 ms at batch 1"},
        "verdict": verdict | {"invariants": invariants, "headline": headline},
    }
