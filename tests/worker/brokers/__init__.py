"""The same behaviours on every broker, with real Celery workers and real runner processes."""
