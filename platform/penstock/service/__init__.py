"""Use cases: one verb family a file. A function that takes a `Transaction` is one database transaction."""
