"""Frontiers: what the compressions of a model have come to, and which of them are on the front."""
