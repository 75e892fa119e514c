"""Live pages: streams that say what changed, made once for all who look."""
