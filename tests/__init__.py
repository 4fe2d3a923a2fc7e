"""The tests: a folder per part of the service; `support` holds what they share."""
