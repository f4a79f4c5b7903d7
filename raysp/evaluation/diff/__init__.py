"""Differences between two labellings of a corpus: `raysp diff`."""
