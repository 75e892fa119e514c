"""How many batch lines may be in the engine now, and what that is decided from."""
