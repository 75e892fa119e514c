"""Before and meanwhile: what a batch would take, and when it will be done."""
