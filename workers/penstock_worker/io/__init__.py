"""The io worker: validates, assembles, sends webhooks."""
