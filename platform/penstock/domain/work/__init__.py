"""Batches, slices and lanes: what is owed, in which order, and how its state may change."""
