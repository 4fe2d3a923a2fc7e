"""Whether the service lives, whether it can serve, and which version it is. Needs no key."""
