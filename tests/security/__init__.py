"""What strangers try: keys that are none, things of others, hostile files."""
