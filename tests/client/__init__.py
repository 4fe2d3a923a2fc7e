"""The SDK and the `cstar` command against the real API, served on a socket."""
