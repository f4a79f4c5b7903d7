"""Choices that a run makes while it labels, and that later runs over the sink keep."""
