"""Tables for `penstock map`: read and written a chunk at a time, prompts made of their rows, answers made columns."""
