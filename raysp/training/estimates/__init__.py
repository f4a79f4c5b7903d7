"""Estimates of a training before it starts: size of a commit, memory of a worker, speed, time and money."""
