"""Data sets: uploaded images and labels, validated and split outside this process."""
