"""`make fuzz`: made-up requests for minutes; the exit status is 0 when nothing was found."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from tests.fuzz.campaign import Plan, run
from tests.fuzz.service import service

PHASES = ("examples", "coverage", "fuzzing", "stateful")
EXAMPLES = 200


def main() -> int:
    """Run one campaign and show it; its seed makes it again."""
    arguments = _arguments()
    plan = Plan(arguments.seed, EXAMPLES, PHASES, max_time_s=round(60 * arguments.minutes))
    with tempfile.TemporaryDirectory() as name, service(Path(name)) as running:
        found = run(running, Path(name), plan, shown=True)
    for traceback in found.tracebacks:
        print(traceback, file=sys.stderr)
    print(f"seed {plan.seed}: {len(found.tracebacks)} tracebacks in the log of the API")
    print(f"never accepted, so tried at the door only: {', '.join(found.never_accepted) or 'none'}")
    return int(found.status or bool(found.tracebacks) or not found.key_works)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: 10)")
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
