"""Merges of labellings of one corpus: each row has the label of the highest score."""
