"""The `cstar` command: what `cstar_client` can do, for people and shell scripts.

stdout has what was asked for (with `--json` a document), stderr progress and errors.
"""
