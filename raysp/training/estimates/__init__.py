"""Estimates of a training before it starts: steps, size of a commit; by measurement speed, memory, time and money."""
