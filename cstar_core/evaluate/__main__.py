"""Entry of `python -m cstar_core.evaluate`."""

from cstar_core.evaluate.command import main

if __name__ == "__main__":
    raise SystemExit(main())
