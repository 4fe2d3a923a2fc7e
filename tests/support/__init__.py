"""Helpers of the tests: databases, rows, and what to do when a machine lacks something."""
