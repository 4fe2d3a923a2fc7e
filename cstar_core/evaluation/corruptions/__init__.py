"""Accuracy on corrupted images: `kinds` what is done to an image, `accuracy` what a network makes
of it, `jpeg` compression as a corruption and as a defence whose attacker knows it.
"""
