"""The remote engine: one that runs already, wherever; what is started here only leads to it."""
