"""The worker's HTTP entry for waiting calls."""
