"""Speed of the method beside its peers: `python -m benchmarks --help`, or `make bench`.

One module for each group of targets yields `Row`s; `harness` times, `rows` and `page` hold and
show what was found, `machine` says where. Peers that only a comparison needs come with the extra
`bench`. Nothing outside this folder imports it.
"""
