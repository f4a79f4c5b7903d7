"""Regions of speech in recordings, and windows that are cut between them."""
