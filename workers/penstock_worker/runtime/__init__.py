"""What every worker process stands on: Celery, beat, poller, loop, shutdown, status."""
