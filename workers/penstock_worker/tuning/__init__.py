"""Tuning: `penstock tune` looks for the arguments with which a model is fastest on the device at hand."""
