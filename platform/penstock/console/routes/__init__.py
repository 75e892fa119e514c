"""Pages of the console: each file is one noun's."""
