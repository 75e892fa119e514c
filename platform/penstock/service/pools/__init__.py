"""Pools: what operators make of them, what their hosts decide by, and what they write down."""
