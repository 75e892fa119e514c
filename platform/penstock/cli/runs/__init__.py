"""Runs: one file of requests on its way through `penstock run`, from `vllm run-batch`'s command line to OUT."""
