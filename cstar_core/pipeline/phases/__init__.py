"""The phases of a run, one module each; none imports another."""
