"""The process that does the work: `python -m worker.runner FOLDER`, one job, then it ends.

It alone imports torch and `cstar_core`. It knows no database, no broker and no credentials; it
reads its folder, writes its folder, and says what it does in NDJSON on its standard output. On
several GPUs it has companions (`companions`), which train with it and say nothing outside.
"""
