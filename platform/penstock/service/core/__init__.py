"""What every use case stands on: transactions, ids, idempotency, scratch."""
