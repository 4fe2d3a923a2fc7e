"""Models: an uploaded checkpoint with its architecture, validated outside this process."""
