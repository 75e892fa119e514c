"""Rows of tenants: keys, prices, usage and fair turns."""
