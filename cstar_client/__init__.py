"""The Python client. Talks HTTP only and imports nothing of the service."""

from cstar_client.client import ApiError, Client, Compression, DigestError

__all__ = ["ApiError", "Client", "Compression", "DigestError"]
