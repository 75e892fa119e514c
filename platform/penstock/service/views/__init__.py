"""How callers see a batch, and how they wait for its end."""
