"""Delivering webhooks: a thread of the scheduler's process and one more for each attempt."""
