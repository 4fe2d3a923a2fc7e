"""Jobs through the real stack while its processes are killed at seeded times.

`campaign` runs one and counts; `make chaos` runs the long ones on every broker and database.
"""
