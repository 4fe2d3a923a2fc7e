"""Which examples a network gets right under an attack: one bool each, resumable, by a seed.

`robustness` clean accuracy and PGD, `autoattack` the headline suite (`autoattack_library` alone
touches the library behind it), `named` attacks by the names that requests use, `result` what an
attack found, `curve` accuracy over epsilon, `steps` whether a longer attack breaks more, `transfer`
attacks crafted on another network, `planted` the self-test, `precision` float32 and nothing less,
`fingerprint` the hash of what was attacked. The attacks' mathematics is in `cstar_core.attacks`.
"""
