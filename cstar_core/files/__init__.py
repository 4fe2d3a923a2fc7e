"""Files that come from outside: checkpoints and data sets, read as if every byte were hostile.

What lives here: the checks of a container before a parser sees it (`archives`,
`safetensors_header`, `weights_pickle`), and the reading of weights (`checkpoints`) and of images
with labels (`datasets`). What does not: which network the weights belong to; that is
`cstar_core.architectures`.

Reading happens in a sandboxed process; the checks here are the first wall, not the only one.
"""
