"""The pool host: one process that lets the versions of a pool take turns on this machine's devices."""
