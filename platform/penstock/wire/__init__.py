"""Other networks: hints over Celery and Redis."""
