"""`python -m stack`, and `cstar`: run the service on this machine, look after it, save it.

up        start everything and keep it running until Ctrl-C, or with --detach until `down`
down      stop what `up --detach` has left running
doctor    say whether this machine and what it is told to use can do the work
backup    save the database and all blobs into a folder
restore   bring a saved folder into an empty database and blob store
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from store.settings import Settings, settings


def main(given: Sequence[str] | None = None) -> int:
    """Run one of the commands; returns its exit status."""
    arguments = _parser().parse_args(given)
    configuration = settings()
    if getattr(arguments, "data_dir", None) is not None:
        configuration = configuration.model_copy(update={"data_dir": arguments.data_dir})
    return COMMANDS[arguments.command](configuration, arguments)


def _up(configuration: Settings, arguments: argparse.Namespace) -> int:
    from stack import background  # noqa: PLC0415  (what it needs is not in every image)
    from stack.up import up  # noqa: PLC0415

    run = background.start if arguments.detach else up
    return run(configuration, port=arguments.port)


def _down(configuration: Settings, _: argparse.Namespace) -> int:
    from stack import background  # noqa: PLC0415

    return background.stop(configuration)


def _doctor(configuration: Settings, arguments: argparse.Namespace) -> int:
    from stack.doctor import report  # noqa: PLC0415

    return report(configuration, as_json=arguments.json)


def _backup(configuration: Settings, arguments: argparse.Namespace) -> int:
    from store import backup  # noqa: PLC0415

    return backup.command(backup.save, configuration, arguments.folder)


def _restore(configuration: Settings, arguments: argparse.Namespace) -> int:
    from store import backup  # noqa: PLC0415

    return backup.command(backup.restore, configuration, arguments.folder)


COMMANDS = {
    "up": _up,
    "down": _down,
    "doctor": _doctor,
    "backup": _backup,
    "restore": _restore,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cstar",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start everything and keep it running")
    up.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: 8000)")
    up.add_argument("--detach", "-d", action="store_true", help="go on in the background")
    down = commands.add_parser("down", help="stop what `up --detach` has left running")
    doctor = commands.add_parser("doctor", help="check this machine and its settings")
    doctor.add_argument("--json", action="store_true", help="one JSON object a line")
    backup = commands.add_parser("backup", help="save the database and all blobs")
    restore = commands.add_parser("restore", help="bring them into an empty place")
    for command in (backup, restore):
        command.add_argument("folder", type=Path, help="where the backup is")
    for command in (up, down, doctor, backup, restore):
        command.add_argument("--data-dir", type=Path, help="default: CSTAR_DATA_DIR, else .cstar")
    return parser


if __name__ == "__main__":
    sys.exit(main())
