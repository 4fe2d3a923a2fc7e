"""The service under load, on loopback, bounded: many queued jobs, streams, polls and workers.

Real API, scheduler, broker, Celery workers and supervisors; only the runner is a small script that
speaks the real protocol, so that what is measured is the service and not the training.
"""
