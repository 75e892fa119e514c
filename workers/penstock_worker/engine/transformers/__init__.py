"""`transformers serve`, with what it would silently do otherwise put right or refused."""
