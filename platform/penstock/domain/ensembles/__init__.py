"""Ensembles: one model made of several, by a rule that an operator writes."""
