"""Cancel, pause, resume, change."""
