"""How work comes in: uploads, batches, jobs, retries."""
