"""Sweeps: several compressions of one model asked for together, one job each, one frontier."""
