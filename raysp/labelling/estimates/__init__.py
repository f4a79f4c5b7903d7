"""Estimates of a run before it starts: hours of audio, speed, time and money."""
