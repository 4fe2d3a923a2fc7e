"""What must be remembered: settings, tables, job states and transitions, outbox, leases, blobs.

Knows no HTTP, no Celery and no torch; `api` and `worker` both stand on it.
"""
