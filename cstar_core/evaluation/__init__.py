"""What can be said of a network, or of two on the same examples, and whether to believe it.

`run` a whole evaluation, `assessment` its pieces for one network, `comparison` those for two;
`attacks`, `certified`, `corruptions`, `latency`, `drift` and `spectra` measure; `statistics`,
`reliability`, `targets` and `verdict` judge; `report` the sections that every report has. `batches`
is the ledger that makes all of it resumable, `watch` how it is followed. Nothing here trains.
"""
