"""Hostile uploads: a table, a runner that judges it, and what must come of it."""
