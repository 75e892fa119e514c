"""Postgres, the only truth: every SQL statement of the platform is in this room.

A store function takes a connection, then the tenant where rows of tenants are read for a caller; it runs
inside the transaction of its caller and never commits. Lock order everywhere: batch, its slices by id, their leases.
"""
