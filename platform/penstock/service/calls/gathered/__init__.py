"""Gathered calls: waiting calls to ensembles whose answer may take several members."""
