"""The worker: Celery tasks that run slices on an engine, and the io tasks around them."""
