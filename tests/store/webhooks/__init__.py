"""Webhooks, as far as the database decides."""
