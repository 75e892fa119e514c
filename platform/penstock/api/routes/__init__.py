"""One file a family of endpoints: parse, call a service, shape the reply."""
