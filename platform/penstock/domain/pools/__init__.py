"""Pools: machines that serve more versions than fit at once, and the policy that says which are awake."""
