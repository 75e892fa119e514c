"""The console: pages for people, rendered here. It is a client of the API, which it asks inside this process."""
