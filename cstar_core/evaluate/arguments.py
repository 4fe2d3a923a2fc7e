"""The arguments of `python -m cstar_core.evaluate`, and the page that explains them."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from cstar_core.architectures import names
from cstar_core.attacks import ThreatModel
from cstar_core.errors import InvalidDataset
from cstar_core.evaluate.networks import Reading
from cstar_core.evaluation.settings import EvaluationSettings

DEFAULT_EXAMPLES, DEFAULT_AUTOATTACK, DEFAULT_PROBE = 1000, 64, 256

DESCRIPTION = """\
Measures how accurate and how robust networks are: clean accuracy on all test images, PGD-20 and
AutoAttack on some of them, an accuracy-over-epsilon curve, and signs that the figures cannot be
trusted. Nothing is trained or changed."""

EPILOG = """\
examples:
  A file of weights; the architecture is recognised by its keys:

    python -m cstar_core.evaluate resnet20.th --data cifar10.npz --epsilon 8/255 \\
        --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225 --output resnet20_report

  A folder exported by this service beside the network it came from, image by image; fails
  (exit status 1) unless AutoAttack accuracy is 0.4 or more with 95 % confidence:

    python -m cstar_core.evaluate compressed/ --baseline dense.safetensors --data cifar10.npz \\
        --epsilon 8/255 --mean 0.49 0.48 0.45 --std 0.25 0.24 0.26 \\
        --min-robust 0.4 --autoattack-examples 1000 --output comparison

With --output, a command that was stopped or killed goes on where it was when it is given again.

exit status:
  0  evaluated; every target that was set is met, and the figures can be relied on
  1  evaluated, but a target is not met (or not decided by so few examples)
  2  wrong usage, or a file that cannot be used
  3  evaluated, but the robustness figures cannot be relied on; the report says why
  130 stopped by Ctrl-C;  70 a defect of this program
"""


@dataclass(frozen=True)
class Arguments:
    """What was asked for; counts of examples are None where the default is to be fitted."""

    models: tuple[Path, ...]
    baseline: Path | None
    data: Path
    threat: ThreatModel
    reading: Reading
    classes: int | None
    examples: int | None
    autoattack_examples: int | None
    probe_examples: int | None
    min_robust: float | None
    min_clean: float | None
    seed: int
    threads: int | None
    device: str
    output: Path | None
    restart: bool
    json: bool

    def settings(self, available: int) -> EvaluationSettings:
        """How `available` test images are used: defaults shrink to them, wishes do not.

        Raises InvalidDataset for wishes that cannot be fulfilled.
        """
        examples = _fitted("--examples", self.examples, DEFAULT_EXAMPLES, available)
        some = {"--autoattack-examples": (self.autoattack_examples, DEFAULT_AUTOATTACK)}
        some |= {"--probe-examples": (self.probe_examples, DEFAULT_PROBE)}
        attacked, probed = (_fitted(name, *counts, examples) for name, counts in some.items())
        return EvaluationSettings(
            threat=self.threat,
            seed=self.seed,
            examples=examples,
            autoattack_examples=attacked,
            probe_examples=probed,
        )


def parse(arguments: Sequence[str] | None = None) -> Arguments:
    """Read the command line; ends the process with status 2 and a line that says what is wrong."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.norm == "linf" and given.epsilon > 1:
        parser.error("an L-inf epsilon is in [0, 1] pixel space, such as 8/255")
    if (given.mean is None) != (given.std is None):
        parser.error("--mean and --std belong together")
    architecture = None if given.architecture == "auto" else given.architecture
    return Arguments(
        models=tuple(given.model),
        threat=ThreatModel(given.norm, given.epsilon),
        reading=Reading(architecture, given.mean, given.std),
        **{
            name: value
            for name, value in vars(given).items()
            if name not in ("model", "norm", "epsilon", "architecture", "mean", "std")
        },
    )


def _fitted(name: str, wish: int | None, default: int, available: int) -> int:
    if wish is None:
        return min(default, available)
    if wish > available:
        raise InvalidDataset(
            f"{name} {wish}: there are {available} to choose from", code="too_few_examples"
        )
    return wish


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cstar_core.evaluate",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_subjects(parser)
    _add_measures(parser)
    _add_surroundings(parser)
    return parser


def _add_subjects(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "model",
        nargs="+",
        type=Path,
        help="a folder exported by this service, or weights: .safetensors, .pt, .pth (state dict)",
    )
    add(
        "--data",
        required=True,
        type=Path,
        metavar="FILE",
        help=".npz (test_images and test_labels beside train_..., or images and labels), or a .zip "
        "of class folders; without a test split every image is used",
    )
    add("--baseline", type=Path, metavar="MODEL", help="compare with this network, image by image")
    add(
        "--architecture",
        default="auto",
        choices=("auto", *names()),
        metavar="NAME",
        help="of files of weights; auto (the default) recognises them by keys and shapes. Known: "
        + ", ".join(names()),
    )
    for name, what in (("--mean", "subtracted from"), ("--std", "dividing")):
        add(
            name,
            nargs="+",
            type=float,
            metavar="X",
            help=f"{what} the channels of images in [0, 1]; needed for files of weights",
        )
    add("--classes", type=_whole(2), metavar="N", help="refuse networks of another number of them")


def _add_measures(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--epsilon",
        required=True,
        type=_epsilon,
        metavar="E",
        help="how far the attacker may go, in [0, 1] pixel space: 8/255 or 0.0314",
    )
    add("--norm", default="linf", choices=("linf", "l2"), help="of the perturbation (default linf)")
    for name, default, what in (
        ("--examples", DEFAULT_EXAMPLES, "test images for PGD-20, drawn by --seed"),
        ("--autoattack-examples", DEFAULT_AUTOATTACK, "of these for AutoAttack"),
        ("--probe-examples", DEFAULT_PROBE, "of these for the curve and the other measures"),
    ):
        add(
            name,
            type=_whole(1),
            metavar="N",
            help=f"{what} (default {default}, or as many as there are)",
        )
    for name, what in (("--min-robust", "AutoAttack"), ("--min-clean", "clean")):
        add(
            name,
            type=_share,
            metavar="X",
            help=f"least {what} accuracy in [0, 1], met by the lower end of its 95 %% interval",
        )
    add("--seed", default=0, type=_whole(0), metavar="N", help="of every random choice (default 0)")


def _add_surroundings(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="where report.json, report.html and report.md of each network go, and the state that "
        "lets a killed command go on; without it nothing is kept",
    )
    add("--restart", action="store_true", help="forget what --output holds of an earlier command")
    add("--threads", type=_whole(1), metavar="N", help="of the CPU (default: torch decides)")
    add("--device", default="cpu", choices=("cpu", "cuda"), help="(default cpu)")
    add("--json", action="store_true", help="print verdicts and figures as JSON, not as a table")


def _epsilon(text: str) -> float:
    try:
        value = float(Fraction(text))
    except (ValueError, ZeroDivisionError, OverflowError):
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no epsilon; say it as 8/255 or 0.0314")
    return value


def _share(text: str) -> float:
    value = _number(text, float)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not in [0, 1]")
    return value


def _whole(least: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        value = int(_number(text, int))
        if not least <= value < 2**31:
            raise argparse.ArgumentTypeError(f"{text!r}: at least {least}")
        return value

    return whole


def _number(text: str, kind: type[int] | type[float]) -> float:
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
