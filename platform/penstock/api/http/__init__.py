"""HTTP itself: connections, bodies, errors, and the middleware around every request."""
