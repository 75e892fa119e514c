"""Results: output and error files, and how each line ended."""
