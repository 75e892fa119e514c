"""Answers: what an engine said, as a client or a line of a file is told it."""
