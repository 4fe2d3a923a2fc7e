"""The Python client. Talks HTTP only and imports nothing of the service."""

from cstar_client.client import ApiError, Client, DigestError

__all__ = ["ApiError", "Client", "DigestError"]
