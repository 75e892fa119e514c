"""Limits: what may be asked, held and kept, in numbers and as rules; whose they are is said above."""
