"""The grid method x ratio x seed on CIFAR-10, stage by stage.

First the dense robust network of a seed, then, starting from it, one run of the pipeline for each
method and ratio; seed after seed. `run` works for at most `--minutes` and saves everything; call
it again, with the same arguments, until it says that nothing is left (exit status 0; 3 means that
work is left). Several processes may share one state folder: each takes what no other works on.

    python -m benchmarks.cifar10 run --data DATA --state STATE                 ResNet-8, CPU
    python -m benchmarks.cifar10 run --data DATA --state STATE --preset resnet18 --device cuda
    python -m benchmarks.cifar10 table --state STATE --output benchmarks/results
    python -m benchmarks.cifar10 split --state STATE --parts PARTS             to carry it elsewhere
    python -m benchmarks.cifar10 join --parts PARTS --state STATE

DATA is a folder with the binary version of CIFAR-10 (data_batch_1.bin ... test_batch.bin) or with
lossless mosaics (train_00.webp ..., labels.npz). STATE takes what is needed to go on: a stage on
one machine may be followed by one on another, the folder carried over by `split` and `join`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.cifar.data import load
from benchmarks.cifar.parts import join, split
from benchmarks.cifar.presets import METHODS, PRESETS, Preset
from benchmarks.cifar.stage import Clock, claimed
from benchmarks.cifar.table import write
from benchmarks.cifar.work import DENSE, Bench, Unit, units, work

WORK_LEFT = 3


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    status: int = options.command(options)
    return status


def run(options: argparse.Namespace) -> int:
    """Work for the minutes of a stage; returns 0 when all is done, else WORK_LEFT."""
    torch.set_num_threads(options.threads)
    preset = _chosen(options)
    bench = Bench(
        preset=preset,
        data=load(options.data),
        folder=options.state,
        device=torch.device(options.device),
        code=options.code or _described(),
    )
    wanted = [unit for unit in units(preset) if _asked_for(unit, options)]
    _stage(bench, wanted, Clock(options.minutes))
    left = [unit for unit in wanted if not bench.finished(unit)]
    print(f"{len(wanted) - len(left)} of {len(wanted)} units are finished", flush=True)
    return WORK_LEFT if left else 0


def _table(options: argparse.Namespace) -> int:
    for path in write(options.state, options.output):
        print(path)
    return 0


def _split(options: argparse.Namespace) -> int:
    print(f"{len(split(options.state, options.parts))} parts in {options.parts}")
    return 0


def _join(options: argparse.Namespace) -> int:
    join(options.parts, options.state)
    return 0


def _stage(bench: Bench, wanted: list[Unit], clock: Clock) -> None:
    for unit in wanted:
        if clock.over():
            return
        if bench.finished(unit) or not bench.ready(unit):
            continue
        with claimed(bench.folder / unit.path) as ours:
            if ours and not bench.finished(unit):
                work(bench, unit, clock)


def _chosen(options: argparse.Namespace) -> Preset:
    preset = PRESETS[options.preset]
    given = {"examples": options.examples, "autoattack_examples": options.autoattack}
    changed = {name: value for name, value in given.items() if value is not None}
    return replace(preset, **changed)


def _asked_for(unit: Unit, options: argparse.Namespace) -> bool:
    seeds, ratios, methods = options.seeds, options.ratios, options.methods
    if seeds is not None and unit.seed not in seeds:
        return False
    if unit.method == DENSE:
        return True
    return (
        not options.dense_only
        and (ratios is None or unit.ratio in ratios)
        and (methods is None or unit.method in methods)
    )


def _described() -> str:
    """Say which commit this checkout is at."""
    command = ["git", "describe", "--always", "--dirty"]
    folder = Path(__file__).parent
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    return found.stdout.strip() or "unknown"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cifar10",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands.add_parser("run", help="work for one stage"))
    table = commands.add_parser("table", help="write the results as JSON and Markdown")
    table.add_argument("--state", type=Path, required=True, help="folder of finished units")
    table.add_argument("--output", type=Path, required=True, help="folder to write into")
    table.set_defaults(command=_table)
    for name, verb in (("split", "pack a state folder into"), ("join", "unpack one from")):
        carry = commands.add_parser(name, help=f"{verb} parts below 16 MB")
        carry.add_argument("--state", type=Path, required=True, help="state folder")
        carry.add_argument("--parts", type=Path, required=True, help="folder of the parts")
        carry.set_defaults(command=_split if name == "split" else _join)
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of CIFAR-10")
    add("--state", type=Path, required=True, help="folder for state and results")
    add("--preset", choices=PRESETS, default="resnet8", help="scale (default: %(default)s)")
    add("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    add("--minutes", type=float, default=9.5, help="length of the stage (default: %(default)s)")
    add("--threads", type=int, default=1, help="CPU threads; part of the result's bits")
    add("--methods", nargs="+", choices=METHODS, help="only these of the preset's")
    add("--ratios", nargs="+", type=float, help="only these of the preset's")
    add("--seeds", nargs="+", type=int, help="only these of the preset's")
    add("--examples", type=int, help="test images attacked by PGD-20")
    add("--autoattack", type=int, help="test images attacked by AutoAttack; 0: not run")
    add("--dense-only", action="store_true", help="only the dense networks")
    add("--code", help="version to record (default: what git describe says)")
    parser.set_defaults(command=run)


if __name__ == "__main__":
    sys.exit(main())
