"""What a tenant has, and may have."""
