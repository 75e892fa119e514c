"""Webhook endpoints, and the queue of what is owed to them."""
