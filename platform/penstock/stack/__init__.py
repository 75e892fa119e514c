"""The stack: what `penstock up` starts on one machine, from a data folder to a platform that answers."""
