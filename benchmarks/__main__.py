"""`python -m benchmarks [P5 P7 ...]`: the targets, each beside its peer, in one run."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from benchmarks import (
    attacks,
    autoattack,
    evaluation,
    gpu,
    inference,
    machine,
    projection,
    ranks,
    training,
)
from benchmarks.harness import Settings, Unavailable
from benchmarks.page import line, page
from benchmarks.rows import Results, Row

Measure = Callable[[Settings], Iterator[Row]]
TARGETS: dict[str, Measure] = {
    "P1": inference.p1,
    "P2": inference.p2,
    "P3": inference.p3,
    "P4": inference.p4,
    "P5": projection.p5,
    "P6": projection.p6,
    "P7": ranks.p7,
    "P8": training.p8,
    "P9": attacks.p9,
    "P10": evaluation.p10,
    "P11": training.p11,
    "P12": evaluation.p12,
    "P13": attacks.p13,
    "P16": gpu.p16,
    "P17": autoattack.p17,
}
# Numerical libraries read these when they are loaded, so a process must start with them.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}


def main() -> None:
    """Measure, print each row as it is found, and write the files that were asked for."""
    parser = _parser()
    arguments = parser.parse_args()
    targets = _targets(parser, arguments.targets)
    if not ONE_THREAD.items() <= os.environ.items():
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **ONE_THREAD})
    torch.set_num_threads(1)
    settings = Settings(arguments.seconds, arguments.seed, arguments.data)
    for results in run(targets, settings):
        if arguments.json:
            _write(results, arguments.json)


def run(targets: list[str], settings: Settings) -> Iterator[Results]:
    """Measure `targets` one after the other; after each, all that was found so far.

    What cannot be measured here is said, not hidden.
    """
    environment = machine.describe(settings)
    print(f"{environment['hardware']}; sgemm {environment['sgemm_gflops']:.0f} GFLOP/s", flush=True)
    load = [machine.load_average()]
    rows: list[Row] = []
    skipped: dict[str, str] = {}
    for target in targets:
        try:
            for row in TARGETS[target](settings):
                print(line(row), flush=True)
                rows.append(row)
        except Unavailable as reason:
            skipped[target] = str(reason)
            print(f"{target:<4} not measured: {reason}", flush=True)
        load.append(machine.load_average())
        yield Results(tuple(rows), dict(skipped), environment | {"load_averages": list(load)})


def _write(results: Results, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(results.to_json())
    path.with_suffix(".md").write_text(page(results))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("targets", nargs="*", metavar="TARGET", help=f"default: all of {' '.join(TARGETS)}")
    add("--json", type=Path, metavar="FILE", help="write all there, and a page beside it")
    add("--data", type=Path, metavar="FOLDER", help="has cifar10/ and checkpoints/; else digits")
    add("--seconds", type=float, default=Settings.seconds, help="per comparison (%(default)g)")
    add("--seed", type=int, default=Settings.seed)
    return parser


def _targets(parser: argparse.ArgumentParser, named: list[str]) -> list[str]:
    unknown = sorted(set(named) - TARGETS.keys())
    if unknown:
        parser.error(f"unknown target {', '.join(unknown)}; use some of {' '.join(TARGETS)}")
    return named or list(TARGETS)


if __name__ == "__main__":
    main()
