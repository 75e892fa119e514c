"""Waiting calls: where workers take them, and which worker gets one."""
