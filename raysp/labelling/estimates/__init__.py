"""Estimates of a run before it starts: hours, durations, padding, memory, time and money."""
