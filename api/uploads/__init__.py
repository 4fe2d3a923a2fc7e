"""Uploads in parts: large files, in any order, again from where they broke off."""
