"""Batches and jobs as their pages show and take them."""
