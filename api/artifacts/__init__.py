"""Artifacts: the files a succeeded job leaves."""
