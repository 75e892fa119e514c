"""Who may be in the engine, and who is next."""
