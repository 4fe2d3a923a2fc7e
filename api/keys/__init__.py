"""API keys: made, shown without their text, replaced, revoked."""
