"""Who changed what: the trail that every writing request leaves, and the list of it."""
