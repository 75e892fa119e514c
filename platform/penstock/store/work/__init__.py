"""Rows of work under way: slices, leases, segments, and the order in which slices are taken."""
