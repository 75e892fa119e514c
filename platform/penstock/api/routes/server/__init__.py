"""Routes about the server itself, beside the API: is it well, what does it count, what does it take."""
