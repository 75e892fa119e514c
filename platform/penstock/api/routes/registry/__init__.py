"""Models as requests name them, their versions, and the aliases that stand for versions."""
