"""The architectures the service can build, as the registry lists them."""
