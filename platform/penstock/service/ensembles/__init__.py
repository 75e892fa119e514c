"""Ensembles: their definitions, where a request goes, and how one answer is made of several."""
