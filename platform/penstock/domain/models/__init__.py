"""Models: their versions, and what a name in a request stands for."""
