"""Engines: the servers that answer lines, and the processes that keep them alive and never let them outlive us."""
