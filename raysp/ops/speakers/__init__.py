"""Speakers of recordings: their vectors, clusters of these, and turns."""
