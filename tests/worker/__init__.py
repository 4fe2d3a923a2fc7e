"""The Celery side and the runner side, with real processes where the behaviour is about those."""
