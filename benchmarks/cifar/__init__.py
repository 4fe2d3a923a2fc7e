"""The grid method x ratio x seed on CIFAR-10: data, presets, work of a stage, tables.

What lives here: what `benchmarks/cifar10.py` runs. What does not: any method; those are the
pipeline's, and a cell of the grid is one run of it.
"""
