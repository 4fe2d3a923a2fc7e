"""Files: bytes that came in, checked against their digest, and out again."""
