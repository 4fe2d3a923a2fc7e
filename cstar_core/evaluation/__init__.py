"""Figures for the report: accuracies with intervals, attacks per example, flags, latency.

`statistics` intervals and paired tests, `robustness` clean accuracy and PGD, `autoattack` the
headline suite (`autoattack_library` alone touches the library behind it), `curve` accuracy over
epsilon, `reliability` signs that an evaluation cannot be trusted, `latency` timings, `batches` the
ledger that makes long evaluations resumable. Nothing here trains, and nothing here decides
whether a target is met.
"""
