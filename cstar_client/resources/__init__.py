"""One class for each kind of thing the API has; all share one `Transport`."""
