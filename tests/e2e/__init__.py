"""Whole jobs through the real stack: real broker, real worker processes, real HTTP."""
