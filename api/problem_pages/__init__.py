"""`/errors`: the pages to which the `type` of a problem leads, out of docs/errors.md."""
