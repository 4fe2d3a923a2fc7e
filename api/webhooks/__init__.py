"""Webhook endpoints and their deliveries. The scheduler's process sends them."""
