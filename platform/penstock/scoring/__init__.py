"""Scoring: what one answer is worth, and what many scores say. Pure, and bounded whatever a client wrote."""
