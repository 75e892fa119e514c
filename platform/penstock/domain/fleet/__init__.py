"""Fleet: models, and the processes that serve them."""
