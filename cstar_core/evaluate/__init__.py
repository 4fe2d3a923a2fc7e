"""Judging networks one already has: `python -m cstar_core.evaluate`, and the job kind `evaluate`.

What lives here: opening networks and test images (`networks`, `data`), one network judged alone or
beside a baseline (`judging`), and the command line (`arguments`, `command`, `kept`, `console`).
What is measured is the business of `cstar_core.evaluation`, how it is shown that of
`cstar_core.reporting`. Nothing here trains or changes a network.
"""
