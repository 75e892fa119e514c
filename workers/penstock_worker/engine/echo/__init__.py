"""The echo engine: simulated, for tests and for measuring everything but the engine."""
