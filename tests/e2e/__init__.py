"""A package, so that the room's platform ends with it."""
