"""The sink of a training: its progress, and the report of it."""
