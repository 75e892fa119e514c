"""Places: where `penstock run` and `penstock map` have their lines asked, and how they come back to them.

`options` are the flags that both take, `place` opens what they name, `sidecar` is what a later call of the same command
goes on from, `following` brings a batch's lines while it runs.
"""
