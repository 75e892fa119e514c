"""Models: their versions, and the aliases that say which of them a name stands for."""
