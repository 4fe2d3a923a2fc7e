"""Celery app, supervisor of runner processes, scheduler.

Nothing here imports torch except `worker.runner`, which is a process of its own.
"""
