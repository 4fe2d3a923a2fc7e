"""Requests made up from openapi.json by Schemathesis, against a real API process.

A short run is tests/contract/test_schemathesis.py; `make fuzz` runs long. Nothing here belongs to
one endpoint: a new route is fuzzed because the document has it.
"""
