"""Rows of pools: what they may serve, what is awake on their hosts, and what they decided."""
